"""The step record against the device's own clock: prefill, decode, and where they meet."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pdswitch.figures.style import BLACK, BLUE, GREEN, ORANGE, house_style, new_figure, title

SWITCHING_KINDS = ("decode before a refill", "refill", "decode after a refill", "decode")
ERRORS = (("duration_s", "as recorded", ORANGE), ("charged_s", "after charging", BLUE))


def draw(facts: dict[str, Any], pure: pd.DataFrame, cycles: pd.DataFrame) -> Figure:
    """Draw runs made of one kind of step above, and the errors in switching runs below.

    Args:
        facts: of the engine.
        pure: results of `join_device_clock` for runs that only prefill (`kind_of_run` prefill), or
            only decode after their one refill.
        cycles: the same for runs that switch between the phases.
    """
    with house_style():
        figure = new_figure(6.0)
        prefill, decode, errors = figure.subplots(3, 1, height_ratios=(4, 3, 3))
        _draw_prefill(prefill, pure[pure["kind_of_run"] == "prefill"], facts["cuda_graph_sizes"])
        _draw_decode(decode, pure[pure["kind"] == "decode"])
        _draw_errors(errors, cycles)
        title(figure, f"step record and device clock, {facts['device']}")
    return figure


def _draw_prefill(axes: Axes, steps: pd.DataFrame, graph_sizes: list[int]) -> None:
    tokens = steps["prefill_tokens"]
    launch = (steps["host_forward_s"] - steps["host_begin_s"]) * 1e3
    axes.plot(tokens, steps["device_s"] * 1e3, "o", color=GREEN, label="device")
    axes.plot(tokens, steps["duration_s"] * 1e3, "x", color=ORANGE, label="record")
    axes.plot(tokens, launch, "+", color=BLUE, label="host, launching the forward pass")
    if graph_sizes:
        axes.axvline(max(graph_sizes), color=BLACK, linewidth=0.8, linestyle=(0, (1, 1.2)))
        label = f"CUDA graphs up to {max(graph_sizes)}"
        axes.plot([], [], color=BLACK, linewidth=0.8, linestyle=(0, (1, 1.2)), label=label)
    axes.set(xscale="log", yscale="log", xlabel="tokens of the prefill", ylabel="ms")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_locator(NullLocator())
    axes.set_title("runs of pure prefill")
    axes.legend()


def _draw_decode(axes: Axes, steps: pd.DataFrame) -> None:
    by_size = steps.assign(launch_s=steps["host_end_s"] - steps["host_begin_s"]).groupby(
        "decode_requests"
    )
    for column, label, marker, color in (
        ("device_s", "device", "o", GREEN),
        ("duration_s", "record", "x", ORANGE),
        ("launch_s", "host, launching the step", "+", BLUE),
    ):
        medians = by_size[column].median() * 1e3
        axes.plot(medians.index, medians, marker, color=color, label=label)
    axes.set(xlabel="requests that decode", ylabel="ms", ylim=(0, None))
    axes.set_title("runs of pure decode, medians")
    axes.legend()


def _draw_errors(axes: Axes, cycles: pd.DataFrame) -> None:
    order = [kind for kind in SWITCHING_KINDS if (cycles["kind"] == kind).any()]
    for offset, (column, label, color) in zip((-0.16, 0.16), ERRORS, strict=True):
        errors = [
            (part[column] - part["device_s"]).to_numpy() * 1e3
            for part in (cycles[cycles["kind"] == kind] for kind in order)
        ]
        axes.boxplot(
            errors,
            positions=np.arange(len(order)) + offset,
            widths=0.26,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": color, "alpha": 0.5, "linewidth": 0.6},
            medianprops={"color": BLACK},
        )
        axes.plot([], [], "s", color=color, alpha=0.5, label=label)
    axes.set_xticks(range(len(order)), [kind.replace(" a ", "\na ") for kind in order])
    axes.axhline(0, color=BLACK, linewidth=0.6)
    axes.set_ylabel("record − device, ms")
    axes.set_title("switching runs: median, quartiles, 5 to 95 %")
    axes.legend()
