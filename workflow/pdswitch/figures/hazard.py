"""The chance to end, by the age of an answer."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pdswitch.figures.style import BLUE, GREEN, RED, house_style, legend_below, new_figure, title
from pdswitch.report.wording import significant

PLACE = 5


def draw(dataset: str, termination: dict[str, Any]) -> Figure:
    """Draw the hazard rate by age, which is the same at every age under the geometric law.

    Beside it the p that k* rests on, in which an answer cut at the limit counts as ended unless
    the estimator is `censored`, and the censored estimate, to which the distance is measured.

    Args:
        dataset: its name.
        termination: content of `termination.json`.
    """
    hazard = termination["hazard"]
    p, error = termination["termination_probability"], termination["standard_error"]
    censored = termination["all_requests"]["censored"]["p"]
    rate, low, high = (np.array(hazard[name], float) for name in ("hazard", "low", "high"))
    with house_style():
        figure = new_figure(2.5)
        axes = figure.subplots()
        axes.axhline(p, color=RED, label=f"$p$ = {p:.4f}, as $k^*$ takes it")
        axes.axhspan(
            p - 1.96 * error,
            p + 1.96 * error,
            color=RED,
            alpha=0.15,
            linewidth=0,
            label="its 95 % interval",
        )
        axes.axhline(
            censored,
            color=GREEN,
            linestyle=(0, (4, 1, 1, 1)),
            label=f"$p$ = {censored:.4f}, cut answers censored",
        )
        # By rounding, a rate of 0 or 1 may lie a hair beyond its interval.
        axes.errorbar(
            hazard["age"],
            rate,
            yerr=np.maximum([rate - low, high - rate], 0),
            fmt="o",
            color=BLUE,
            elinewidth=0.9,
            capsize=2,
            label="hazard, 95 % interval",
        )
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        axes.set_xlabel("age of the answer, output tokens")
        axes.set_ylabel("chance to end with this token")
        distance = significant(termination["geometric_ks_distance"], 3)
        title(figure, f"{dataset}: distance to the geometric law (KS) {distance}")
        legend_below(figure, axes)
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    offline = results["offline_estimation"]
    return (
        "Chance to end with the next token, by age; the theory takes it to be the same at every "
        f"age. Bars: 95 % intervals. Largest gap to the geometric law (Kolmogorov–Smirnov): "
        f"{significant(offline['geometric_ks_distance'], 3)}."
    )
