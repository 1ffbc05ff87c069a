"""How the online k* and the estimate of p move during the run."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pdswitch.figures.style import BLUE, GREEN, GREY, RED, style


def draw(dataset: str, history: pd.DataFrame, theory: dict[str, Any]) -> Figure:
    """Draw k* above and p below, over completed requests.

    Args:
        dataset: its name.
        history: content of `kstar_history.parquet`.
        theory: content of `threshold.json`.
    """
    p, error = theory["termination_probability"], theory["standard_error"]
    with style():
        figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7.2, 5))
        top.axhline(theory["k_star"], color=RED, label=f"offline k* = {theory['k_star']}")
        bottom.axhline(p, color=RED, label=f"offline p = {p:.4f}")
        bottom.axhspan(p - 1.96 * error, p + 1.96 * error, color=RED, alpha=0.12, linewidth=0)
        if history.empty:
            top.text(
                0.5, 0.3, "fewer completions than one update interval: no update",
                ha="center", color=GREY, transform=top.transAxes,
            )
        else:
            done = [0, *history["completions"]]
            top.step(
                done, [theory["k_star"], *history["threshold"]], where="post", color=BLUE,
                marker="o", markersize=4, label="online k*",
            )
            bottom.plot(
                done, [p, *history["termination_probability"]], color=GREEN, marker="o",
                markersize=4, label="online p",
            )
        top.set_ylabel("threshold k")
        top.set_ylim(0, None)
        top.yaxis.get_major_locator().set_params(integer=True)
        bottom.set_ylabel("p per token")
        bottom.set_ylim(0, None)
        bottom.set_xlabel("completed requests")
        top.set_title(f"{dataset}: online estimation", fontsize=10)
        top.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        bottom.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
