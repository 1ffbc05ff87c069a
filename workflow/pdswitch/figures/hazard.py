"""The chance to end, by age of the answer."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from pdswitch.figures.style import BLUE, RED, style


def draw(dataset: str, termination: dict[str, Any]) -> Figure:
    """Draw the hazard rate by age, which a geometric law has constant.

    Args:
        dataset: its name.
        termination: content of `termination.json`.
    """
    hazard = termination["hazard"]
    rate, p = np.array(hazard["hazard"]), termination["termination_probability"]
    error = [rate - np.array(hazard["low"]), np.array(hazard["high"]) - rate]
    with style():
        figure, axes = plt.subplots()
        axes.errorbar(
            hazard["age"], rate, yerr=np.maximum(error, 0), fmt="o", markersize=4, capsize=2,
            color=BLUE, label="hazard, 95 % interval",
        )
        axes.axhline(p, color=RED, label=f"p = {p:.4f}, the geometric law")
        axes.set_xlabel("age, output tokens")
        axes.set_ylabel("chance to end with this token")
        axes.set_ylim(0, None)
        axes.set_title(
            f"{dataset}: distance to the geometric law (Kolmogorov–Smirnov) "
            f"{termination['geometric_ks_distance']:.2f}",
            fontsize=10,
        )
        axes.legend()
    return figure
