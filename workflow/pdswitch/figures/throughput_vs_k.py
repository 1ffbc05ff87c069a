"""Measured and predicted throughput over the threshold k."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdswitch.analysis.comparison import Floats, mean_interval
from pdswitch.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    RED,
    TINT,
    house_style,
    legend_below,
    new_figure,
    note,
    title,
    whole_numbers,
)
from pdswitch.report.wording import (
    count,
    measured_grid,
    percent,
    significant,
    threshold,
    thresholds,
)

PLACE = 1
SETTINGS = ("repeats", "num_requests", "lengths", "drain")


class Measured(NamedTuple):
    """Throughput of the counted runs.

    Attributes:
        threshold: k of each point, ascending, length K.
        mean: requests/s, length K.
        low: lower end of the mean's 95 % interval; NaN where it is unknown.
        high: upper end.
        single_k: k of every single run.
        single: its requests/s.
    """

    threshold: Floats
    mean: Floats
    low: Floats
    high: Floats
    single_k: Floats
    single: Floats


def draw(results: dict[str, Any]) -> Figure:
    """Draw the sweep: above, whole runs and what they are compared with; below, the steady window.

    The formula knows neither ramp nor drain, so that its prediction belongs to the steady window;
    the verdict is about whole runs.

    Args:
        results: content of `{dataset}_results.json`.
    """
    with house_style():
        figure = new_figure(5.3)
        whole, steady = figure.subplots(2, 1, sharex=True)
        _draw_set(whole, results)
        runs, contenders = results["throughput_by_k"], results["verdict"]["contenders"]
        _draw_measured(whole, measured_throughput(runs, "throughput", contenders))
        _draw_baselines(whole, results, "throughput")
        _draw_chosen(whole, results)
        whole.set_title("whole run: requests / makespan")
        _draw_prediction(steady, results["prediction"])
        _draw_measured(steady, measured_throughput(runs, "steady_throughput", contenders))
        _draw_baselines(steady, results, "steady_throughput")
        _draw_thresholds(steady, results)
        steady.set_title("steady window: neither ramp nor drain")
        for axes in (whole, steady):
            axes.set_ylabel("throughput, requests/s")
        steady.set_xlabel("threshold k: free slots that start a refill")
        # Room for markers at k = 1 and k = N.
        margin = max(0.5, 0.02 * results["n_slots"])
        steady.set_xlim(1 - margin, results["n_slots"] + margin)
        whole_numbers(steady, "x")
        title(figure, f"{results['dataset']}, {results['model']}, N = {results['n_slots']}")
        legend_below(figure, whole, steady)
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    verdict, prediction = results["verdict"], results["prediction"]
    grid, chosen = measured_grid(results), results["verdict"]["indifference_set"]
    counted = count(sum(block["n"] for block in results["throughput_by_k"].values()), "counted run")
    shaded = f"k = {thresholds(chosen)}" if chosen else "unknown without an interval"
    return (
        f"Throughput over the threshold k: {counted} at {count(len(grid), 'threshold')}, "
        f"{count(verdict['n_blocks'], 'complete block')}, {results['num_requests']} requests each. "
        "Above, whole runs, ramp and drain included, in requests/s: "
        f"{significant(results['throughput_k_star'])} at k* = {results['k_star']}, "
        f"{significant(results['throughput_k_hat'])} at k̂ = {threshold(results['k_hat'])}, "
        f"{significant(results['throughput_online'])} online, "
        f"{significant(results['throughput_mixed'])} mixed. "
        f"Yellow, not told from k̂ at 95 %: {shaded}. "
        "Below, the steady window, which is what the formula predicts, with a mean absolute error "
        f"of {percent(prediction['mape_corrected'])} from straight fits and "
        f"{percent(prediction['mape_measured_curves'])} from measured curves. "
        "Thick bars: 95 % intervals of each k's own level, to compare with the predictions. They "
        "include what differs from block to block, which all k share: few blocks make them wide. "
        "For differences between k look at the yellow."
    )


def measured_throughput(
    by_k: dict[str, Any], metric: str, contenders: list[int] | None = None
) -> Measured:
    """Collect one metric of the sweep, each k that has a counted run.

    The interval is of the level that the next blocks would have: mean·exp(±w), see
    `pdswitch.analysis.comparison.mean_interval`. Two or three repeats of one k say little of their
    scatter, so it is pooled over the contenders, and over the rest, as far as they were measured in
    the same blocks.

    Args:
        by_k: `throughput_by_k` of the results.
        metric: ``throughput`` or ``steady_throughput``.
        contenders: of the verdict; all k pooled where there are none.
    """
    thresholds = sorted(int(k) for k, block in by_k.items() if block[metric]["values"])
    if not thresholds:
        return Measured(*[np.empty(0)] * 6)
    values: dict[int, Floats] = {}
    alike: dict[tuple[Any, ...], list[int]] = {}
    for k in thresholds:
        runs = by_k[str(k)][metric]
        blocks = runs.get("blocks") or range(len(runs["values"]))
        values[k] = np.array(runs["values"], float)[np.argsort(blocks)]
        alike.setdefault((k in (contenders or []), *sorted(blocks)), []).append(k)
    width = {
        k: mean_interval(np.log(np.column_stack([values[one] for one in members])))
        for members in alike.values()
        for k in members
    }
    mean = np.array([values[k].mean() for k in thresholds])
    spread = np.exp([width[k] for k in thresholds])
    return Measured(
        np.array(thresholds, float),
        mean,
        mean / spread,
        mean * spread,
        np.repeat(np.array(thresholds, float), [values[k].size for k in thresholds]),
        np.concatenate([values[k] for k in thresholds]),
    )


def bands(chosen: list[int]) -> list[tuple[float, float]]:
    """Return the stretches of the axis to shade for these k, and for no k between them.

    Each reaches half a slot to either side; those of successive k are joined.
    """
    joined: list[tuple[float, float]] = []
    for k in sorted(chosen):
        if joined and joined[-1][1] == k - 0.5:
            joined[-1] = (joined[-1][0], k + 0.5)
        else:
            joined.append((k - 0.5, k + 0.5))
    return joined


def _draw_measured(axes: Axes, points: Measured) -> None:
    if not points.threshold.size:
        note(axes, "no run counts here")
        return
    known = np.isfinite(points.low)
    label = "measured mean, 95 % interval" if known.any() else "measured, no interval"
    error = np.where(known, [points.mean - points.low, points.high - points.mean], 0)
    axes.errorbar(
        points.threshold,
        points.mean,
        yerr=error,
        color=BLUE,
        marker="o",
        markersize=2.5,
        linewidth=1,
        elinewidth=2.5,
        ecolor=BLUE + "66",
        zorder=3,
        label=label,
    )
    axes.plot(
        points.single_k,
        points.single,
        "_",
        color=BLUE,
        markersize=6,
        markeredgewidth=0.7,
        zorder=4,
        label="single repeats",
    )


def _draw_set(axes: Axes, results: dict[str, Any]) -> None:
    for low, high in bands(results["verdict"]["indifference_set"] or []):
        axes.axvspan(
            low,
            high,
            facecolor=TINT,
            edgecolor=TINT,
            linewidth=1.5,  # so that one slot of a thousand is seen
            zorder=0,
            label=r"not told from $\hat{k}$ (95 %)",
        )


def _draw_baselines(axes: Axes, results: dict[str, Any], metric: str) -> None:
    lines = (
        ("online", PURPLE, (0, (5, 2)), "online $k^*$"),
        ("mixed", GREY, (0, (1, 1.2)), "mixed: vLLM's own"),
    )
    for name, color, linestyle, label in lines:
        block = results.get(name)
        if block and block[metric]["values"]:
            axes.axhline(
                block[metric]["mean"], color=color, linestyle=linestyle, zorder=2, label=label
            )


def _draw_chosen(axes: Axes, results: dict[str, Any]) -> None:
    """Mark k* and k̂ on the measured curve, one inside the other where they are equal."""
    star: dict[str, Any] = {"marker": "*", "color": BLACK, "markersize": 7, "markeredgewidth": 0}
    diamond: dict[str, Any] = {
        "marker": "D",
        "color": RED,
        "markersize": 8,
        "markerfacecolor": "none",
    }
    for k, marker, label in (
        (results["k_star"], diamond, f"offline $k^*$ = {results['k_star']}"),
        (results["k_hat"], star, rf"best measured $\hat{{k}}$ = {results['k_hat']}"),
    ):
        block = results["throughput_by_k"].get(str(k))
        if block and block["n"]:
            axes.plot(
                k, block["throughput"]["mean"], linestyle="none", zorder=5, label=label, **marker
            )


def _draw_prediction(axes: Axes, prediction: dict[str, Any]) -> None:
    k = np.array(prediction["threshold"])
    # With N = 1 a line has no length.
    marker: dict[str, Any] = {"marker": "_" if k.size == 1 else "", "markersize": 12}
    axes.plot(
        k, _numbers(prediction["corrected"]), color=RED, label="predicted, straight fits", **marker
    )
    axes.fill_between(
        k,
        _numbers(prediction["low"]),
        _numbers(prediction["high"]),
        color=RED,
        alpha=0.15,
        linewidth=0,
        label="95 % band of that",
    )
    axes.plot(
        k,
        _numbers(prediction["measured_curves"]),
        color=GREEN,
        linestyle=(0, (4, 1, 1, 1)),
        label="predicted, measured curves",
        **marker,
    )


def _draw_thresholds(axes: Axes, results: dict[str, Any]) -> None:
    """Mark on the lower edge where the formulas put k*."""
    edge: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5}
    low, high = results.get("k_star_range") or (results["k_star"], results["k_star"])
    axes.plot(
        [low, high],
        [0.012, 0.012],
        color=RED,
        linewidth=3,
        alpha=0.45,
        solid_capstyle="butt",
        label="offline $k^*$, 95 % range",
        **edge,
    )
    axes.plot(
        results["k_star"], 0.012, "D", color=RED, markerfacecolor="none", markersize=5, **edge
    )
    single = results["k_star_single_exit"]
    axes.plot(
        single,
        0.012,
        "x",
        color=GREY,
        alpha=0.6,
        markersize=5,
        label=f"single-exit $k^*$ = {single}",
        **edge,
    )


def _numbers(values: list[float | None]) -> Floats:
    # JSON has no NaN: a missing number is null.
    return np.array(values, dtype=np.float64)
