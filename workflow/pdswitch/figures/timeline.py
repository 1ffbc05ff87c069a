"""The phases of a run over time, and the requests in slots."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdswitch.figures.style import (
    BLACK,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    house_style,
    legend_below,
    new_figure,
    note,
    title,
    whole_numbers,
)
from pdswitch.report.wording import seconds

PLACE = 7
SETTINGS = ("drain",)

COLORS = {"prefill": ORANGE, "decode": SKY, "mixed": PURPLE, "empty": GREY}
# Refills in the enlarged part.
CLOSE_UP = 6

Phases = list[dict[str, Any]]


def draw(dataset: str, timeline: Phases) -> Figure:
    """Draw the whole run above and some cycles from its middle below.

    The strips under the curves are the phases; the curves are the requests in slots.

    Args:
        dataset: its name.
        timeline: content of `pd_timeline_{dataset}.json`.
    """
    with house_style():
        part = close_up(timeline)
        parts = [("whole run", timeline), ("some cycles from its middle", part)]
        if len(part) == len(timeline):
            del parts[1]
        figure = new_figure(1.4 + 1.3 * len(parts))
        drawn = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
        for axes, (heading, shown) in zip(drawn, parts, strict=True):
            _draw_phases(axes, shown)
            axes.set_title(heading)
            axes.set_ylabel("requests in slots")
            whole_numbers(axes, "y")
        _draw_drain(drawn[0], timeline)
        drawn[-1].set_xlabel("seconds since the run's first step")
        title(figure, f"{dataset}: run at k*, {_count(timeline, 'prefill')} refills")
        legend_below(figure, drawn[0], columns=3)
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    block = results["throughput_by_k"].get(str(results["k_star"])) or {}
    refill = block.get("mean_refill")
    text = (
        f"Phases of the first run at k* = {results['k_star']}, and the requests in slots. "
        "Below, some cycles from the middle."
    )
    if refill is None:
        return text
    return (
        f"{text} A refill admits {refill:.1f} requests in the mean; the 99th percentile of the gap "
        f"between two tokens of a request is {seconds(block['itl']['p99'])}."
    )


def close_up(phases: Phases) -> Phases:
    """Return the phases around the middle refill, about `CLOSE_UP` cycles of them."""
    refills = [place for place, phase in enumerate(phases) if phase["phase"] == "prefill"]
    if len(refills) <= CLOSE_UP:
        return phases
    first = (len(refills) - CLOSE_UP) // 2
    return phases[refills[first] : refills[first + CLOSE_UP]]


def _draw_phases(axes: Axes, phases: Phases) -> None:
    if not phases:
        note(axes, "no phase on record")
        return
    # Below zero requests, a strip of a tenth of the height.
    for kind, color in COLORS.items():
        spans = [
            (phase["start_s"], phase["end_s"] - phase["start_s"])
            for phase in phases
            if phase["phase"] == kind
        ]
        if spans:
            axes.broken_barh(
                spans,
                (0, 0.1),
                color=color,
                linewidth=0,
                transform=axes.get_xaxis_transform(),
                label=kind,
            )
    times, requests = zip(*(point for phase in phases for point in phase["curve"]), strict=True)
    top = max(requests)
    axes.plot(times, requests, color=BLACK, linewidth=0.9, label="requests in slots")
    axes.set_ylim(-0.14 * max(top, 1), 1.08 * max(top, 1))
    axes.set_xlim(phases[0]["start_s"], phases[-1]["end_s"])


def _draw_drain(axes: Axes, phases: Phases) -> None:
    ends = [phase["end_s"] for phase in phases if phase["waiting"] == 0]
    if len(ends) > 1:
        axes.axvline(ends[0], color=GREY, linestyle=(0, (1, 1.2)), label="last request admitted")


def _count(phases: Phases, kind: str) -> int:
    return sum(phase["phase"] == kind for phase in phases)
