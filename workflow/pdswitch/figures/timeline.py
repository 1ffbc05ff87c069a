"""The phases of a run over time."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pdswitch.figures.style import BLUE, GREY, ORANGE, PURPLE, style

COLORS = {"prefill": ORANGE, "decode": BLUE, "mixed": PURPLE, "empty": GREY}


def draw(title: str, phases: list[dict[str, Any]]) -> Figure:
    """Draw every phase as a bar as high as the requests in slots at its end.

    Args:
        title: of the figure.
        phases: content of `pd_timeline_{dataset}.json`.
    """
    with style():
        figure, axes = plt.subplots(figsize=(10.5, 3.4))
        for kind in dict.fromkeys(phase["phase"] for phase in phases):
            own = [phase for phase in phases if phase["phase"] == kind]
            axes.bar(
                [phase["start_s"] for phase in own],
                [phase["requests"] for phase in own],
                [phase["end_s"] - phase["start_s"] for phase in own],
                align="edge",
                color=COLORS[kind],
                linewidth=0,
                label=kind,
            )
        axes.set_xlabel("seconds from the first step")
        axes.set_ylabel("requests in slots")
        axes.set_title(title, fontsize=10)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
