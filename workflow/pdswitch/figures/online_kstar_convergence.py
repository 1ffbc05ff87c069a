"""How p and k* move while they are estimated online."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pdswitch.figures.style import (
    BLUE,
    RED,
    house_style,
    legend_below,
    new_figure,
    note,
    title,
    whole_numbers,
)


def draw(dataset: str, history: pd.DataFrame, theory: dict[str, Any]) -> Figure:
    """Draw k* above and p below over completed requests, with the offline values.

    Args:
        dataset: its name.
        history: content of `kstar_history.parquet`; empty if the run ended before an update.
        theory: content of `threshold.json`.
    """
    p, error = theory["termination_probability"], theory["standard_error"]
    k_star = theory["k_star"]
    # The run starts with the offline values.
    done = [0, *history["completions"]]
    k, estimates = [k_star, *history["threshold"]], [p, *history["termination_probability"]]
    online = {"color": BLUE, "marker": "o", "markersize": 3 if len(done) <= 60 else 1}
    with house_style():
        figure = new_figure(3.6)
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.axhline(k_star, color=RED, label=f"offline: $k^*$ = {k_star}, $p$ = {p:.4f}")
        low, high = theory["k_star_range"]
        upper.axhspan(low, high, color=RED, alpha=0.15, linewidth=0, label="its 95 % range")
        lower.axhline(p, color=RED)
        lower.axhspan(p - 1.96 * error, p + 1.96 * error, color=RED, alpha=0.15, linewidth=0)
        upper.plot(done, k, drawstyle="steps-post", label="online", **online)
        lower.plot(done, estimates, **online)
        if history.empty:
            note(upper, "the run ended before the first update")
        lower.set_xlim(0, 1.02 * max(done[-1], 1))
        whole_numbers(lower, "x")
        upper.set_ylabel("threshold k in force")
        upper.set_ylim(0, 1.12 * max(high, *k))
        whole_numbers(upper, "y")
        lower.set_ylabel("$p$, per token")
        lower.set_ylim(0, None)
        lower.set_xlabel("completed requests")
        title(figure, f"{dataset}: {len(history)} online updates of k*, N = {theory['n_slots']}")
        legend_below(figure, upper, columns=3)
    return figure
