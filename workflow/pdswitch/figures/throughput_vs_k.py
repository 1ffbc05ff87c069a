"""Measured and predicted throughput over k."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdswitch.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, style


def draw(results: dict[str, Any]) -> Figure:
    """Draw the sweep: makespan on the left, steady window and predictions on the right.

    Args:
        results: content of `{dataset}_results.json`.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.8))
        _measured(left, results, "throughput")
        _lines(left, results)
        left.set_title("whole run (makespan)", fontsize=10)
        _measured(right, results, "steady_throughput")
        _predicted(right, results["prediction"])
        right.set_title("steady window, and prediction", fontsize=10)
        for axes in (left, right):
            _markers(axes, results)
            axes.set_xlabel("threshold k, free slots that start a refill")
            axes.set_ylabel("requests/s")
            axes.set_xlim(0, results["n_slots"] + 1)
        _add_legend(left)
        _add_legend(right)
        figure.suptitle(
            f"{results['dataset']} on {results['model']}, N = {results['n_slots']}", fontsize=11
        )
    return figure


def _measured(axes: Axes, results: dict[str, Any], metric: str) -> None:
    blocks = [b for b in results["throughput_by_k"].items() if b[1][metric]["values"]]
    if not blocks:
        axes.text(0.5, 0.5, "no run has a steady window", ha="center", transform=axes.transAxes)
        return
    k = np.array([int(name) for name, _ in blocks])
    mean = np.array([block[metric]["mean"] for _, block in blocks])
    axes.plot(k, mean, color=BLUE, marker="o", markersize=4, label="measured mean", zorder=3)
    for name, block in blocks:
        values = block[metric]["values"]
        axes.scatter([int(name)] * len(values), values, s=9, color=BLUE, alpha=0.35, zorder=2)
    axes.scatter([], [], s=9, color=BLUE, alpha=0.35, label="single repeats")


def _lines(axes: Axes, results: dict[str, Any]) -> None:
    mixed, online = results["throughput_mixed"], results["throughput_online"]
    if mixed is not None:
        axes.axhline(mixed, color=GREY, linestyle=(0, (1, 1.5)), label="mixed (vLLM's own policy)")
    if online is not None:
        axes.axhline(online, color=GREEN, linestyle="--", label="online k*")
    chosen = results["verdict"]["indifference_set"]
    if chosen:
        axes.scatter(
            chosen,
            [0.02] * len(chosen),
            marker="|",
            s=60,
            color=ORANGE,
            transform=axes.get_xaxis_transform(),
            label="k not told from the best (95 %)",
            clip_on=False,
        )


def _predicted(axes: Axes, prediction: dict[str, Any]) -> None:
    k = prediction["threshold"]
    axes.plot(k, prediction["corrected"], color=RED, label="predicted, straight fits")
    axes.fill_between(k, prediction["low"], prediction["high"], color=RED, alpha=0.15, linewidth=0)
    axes.plot(
        k, prediction["measured_curves"], color=PURPLE, linestyle="-.", label="predicted, measured curves"
    )


def _markers(axes: Axes, results: dict[str, Any]) -> None:
    marks = [
        (results["k_star"], RED, "-", f"k* = {results['k_star']}"),
        (results["k_hat"], BLACK, ":", f"k̂ = {results['k_hat']} (makespan)"),
        (results["k_star_single_exit"], SKY, (0, (4, 3)), f"published variant = {results['k_star_single_exit']}"),
    ]
    for k, color, linestyle, label in marks:
        axes.axvline(k, color=color, linestyle=linestyle, linewidth=1.1, alpha=0.8, label=label)


def _add_legend(axes: Axes) -> None:
    # Below the axes: over the data it would hide some of them.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
