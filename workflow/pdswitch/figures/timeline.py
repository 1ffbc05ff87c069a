"""The phases of a run over time, and the requests in slots."""

from typing import Any

import numpy as np
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

COLORS = {"prefill": ORANGE, "decode": SKY, "mixed": PURPLE, "empty": GREY}
# Refills in the enlarged part.
CLOSE_UP = 6

Phases = list[dict[str, Any]]


def draw(dataset: str, phases: Phases) -> Figure:
    """Draw the whole run above and some cycles from its middle below.

    The strips under the curves are the phases; the curves go through the requests in slots at the
    end of each phase.

    Args:
        dataset: its name.
        phases: content of `pd_timeline_{dataset}.json`.
    """
    with house_style():
        figure = new_figure(3.9)
        whole, close = figure.subplots(2, 1, height_ratios=(3, 2))
        if phases:
            _draw_phases(whole, phases)
            _draw_waiting(whole, phases)
            _draw_phases(close, close_up(phases))
        else:
            note(whole, "no phase on record")
        whole.set_title("whole run")
        close.set_title("some cycles from its middle")
        for axes in (whole, close):
            axes.set_ylabel("requests")
            whole_numbers(axes, "y")
        close.set_xlabel("seconds since the run's first step")
        title(figure, f"{dataset}: run at k*, {_count(phases, 'prefill')} refills")
        legend_below(figure, whole, columns=3)
    return figure


def close_up(phases: Phases) -> Phases:
    """Return the phases around the middle refill, about `CLOSE_UP` cycles of them."""
    refills = [place for place, phase in enumerate(phases) if phase["phase"] == "prefill"]
    if len(refills) <= CLOSE_UP:
        return phases
    first = (len(refills) - CLOSE_UP) // 2
    return phases[refills[first] : refills[first + CLOSE_UP]]


def _draw_phases(axes: Axes, phases: Phases) -> None:
    # Under the axis of requests, a strip of a tenth of the height.
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
    top = max(phase["requests"] for phase in phases)
    axes.plot(*_curve(phases, "requests"), color=BLACK, linewidth=0.9, label="requests in slots")
    axes.set_ylim(-0.14 * max(top, 1), 1.08 * max(top, 1))
    axes.set_xlim(phases[0]["start_s"], phases[-1]["end_s"])


def _draw_waiting(axes: Axes, phases: Phases) -> None:
    left = np.array([phase["waiting"] for phase in phases])
    gone = left == 0
    if gone.any() and phases[int(gone.argmax())]["end_s"] < phases[-1]["end_s"]:
        drain = phases[int(gone.argmax())]["end_s"]
        axes.axvline(drain, color=GREY, linestyle=(0, (1, 1.2)), label="last request admitted")


def _curve(phases: Phases, name: str) -> tuple[list[float], list[float]]:
    return [phase["end_s"] for phase in phases], [phase[name] for phase in phases]


def _count(phases: Phases, kind: str) -> int:
    return sum(phase["phase"] == kind for phase in phases)
