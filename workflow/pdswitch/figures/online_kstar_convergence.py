"""How p and k* move while they are estimated online."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdswitch.figures.style import (
    BLACK,
    BLUE,
    GREY,
    RED,
    house_style,
    legend_below,
    new_figure,
    note,
    title,
    whole_numbers,
)
from pdswitch.report.wording import online_basis, significant

PLACE = 6
SETTINGS = ("online_p_estimator", "ema_alpha", "kstar_update_interval")


def draw(results: dict[str, Any]) -> Figure:
    """Draw k* above and p below over completed requests, with the offline values.

    What lies outside the steady window, ramp and drain, is shaded: k* online and p̂ are medians over
    the rest.

    Args:
        results: content of `{dataset}_results.json`.
    """
    offline, estimated = results["offline_estimation"], results["online_estimation"]
    p, error = offline["termination_probability"], offline["standard_error"]
    k_star, history = results["k_star"], estimated["history"]
    # The run starts with the offline values.
    done = [0, *(update["completions"] for update in history)]
    k = [k_star, *(update["threshold"] for update in history)]
    estimates = [p, *(update["termination_probability"] for update in history)]
    online = {"color": BLUE, "marker": "o", "markersize": 3 if len(done) <= 60 else 1}
    end = max(estimated["completions"], done[-1], 1)
    with house_style():
        figure = new_figure(3.6)
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes in (upper, lower):
            _shade_unsteady(axes, estimated["steady_completions"], end)
        upper.axhline(k_star, color=RED, label=f"offline: $k^*$ = {k_star}, $p$ = {p:.4f}")
        low, high = results["k_star_range"]
        upper.axhspan(low, high, color=RED, alpha=0.15, linewidth=0, label="its 95 % range")
        lower.axhline(p, color=RED)
        lower.axhspan(p - 1.96 * error, p + 1.96 * error, color=RED, alpha=0.15, linewidth=0)
        upper.plot(done, k, drawstyle="steps-post", label="online", **online)
        lower.plot(done, estimates, **online)
        _draw_medians(upper, lower, estimated)
        if not history:
            note(upper, "the run ended before the first update")
        lower.set_xlim(0, 1.01 * end)
        whole_numbers(lower, "x")
        upper.set_ylabel("threshold k in force")
        upper.set_ylim(0, 1.12 * max(high, *k))
        whole_numbers(upper, "y")
        lower.set_ylabel("$p$, per token")
        lower.set_ylim(0, None)
        lower.set_xlabel("completed requests")
        updates = f"{len(history)} online updates of k*, {estimated['steady_updates']} steady"
        title(figure, f"{results['dataset']}: {updates}, N = {results['n_slots']}")
        legend_below(figure, upper)
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    online = results["online_estimation"]
    offline_p = significant(results["offline_estimation"]["termination_probability"])
    found = (
        "No k* online"
        if online["k_star"] is None
        else f"k* = {online['k_star']} at p = {significant(online['termination_probability'])}"
    )
    return (
        "Threshold in force and estimate of p while serving. "
        f"{found} ({online_basis(results)}); offline: {results['k_star']} at {offline_p}. "
        "Red: the offline values with their 95 % ranges. Grey: ramp and drain. In the drain only "
        "long answers are left, so that p and k* fall. Dashed: the medians between them, which are "
        "k* online and its p."
    )


def _shade_unsteady(axes: Axes, steady: list[int] | None, end: int) -> None:
    """Shade what neither k* online nor p̂ rests on; all of it where there is no steady window."""
    first, last = steady or (end, end)
    for low, high in ((0, first), (last, end)):
        if high > low:
            axes.axvspan(
                low, high, color=GREY, alpha=0.15, linewidth=0, zorder=0, label="ramp and drain"
            )


def _draw_medians(upper: Axes, lower: Axes, estimated: dict[str, Any]) -> None:
    if not estimated["steady_updates"]:
        return
    k_star, p = estimated["k_star"], estimated["termination_probability"]
    label = f"median: $k^*$ = {k_star}, $p$ = {p:.4f}"
    for axes, value in ((upper, k_star), (lower, p)):
        axes.hlines(
            value,
            *estimated["steady_completions"],
            color=BLACK,
            linestyle=(0, (3, 1.5)),
            zorder=4,
            label=label,
        )
