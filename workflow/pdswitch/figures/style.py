"""How every figure looks: made for one column of a paper, told apart without colour vision."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette. Colour never stands alone: line style or marker says the same.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#6E6E6E", "#000000"
TINT = "#FBF7C6"  # yellow at 30 % on white: under data

COLUMN_IN = 3.5
SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine has it
    "mathtext.fontset": "dejavusans",
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.35,
    "figure.titlesize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # whole TrueType fonts, which publishers ask for
    "savefig.dpi": 300,
    "savefig.facecolor": "white",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw, or save, in the project's style, whatever the user's matplotlibrc says."""
    with matplotlib_style.context(["default", SETTINGS]):
        yield


def new_figure(height_in: float) -> Figure:
    """Return an empty figure of one column's width, free of pyplot's global list of figures."""
    return Figure(figsize=(COLUMN_IN, height_in), layout="constrained")


def plain(text: object) -> str:
    """Return text in which a dollar sign does not begin mathematics."""
    return str(text).replace("$", r"\$")


def title(figure: Figure, text: str) -> None:
    """Give a figure its title, over as many lines as it needs."""
    figure.suptitle(textwrap.fill(plain(text), 56))


def whole_numbers(axes: Axes, axis: str) -> None:
    """Put the ticks of an axis ("x" or "y") on whole numbers only."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def note(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    axes.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center",
        color=GREY,
        transform=axes.transAxes,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def legend_below(figure: Figure, *axes: Axes, columns: int = 2) -> None:
    """Put one legend for all axes under the figure, where it hides no data; labels once each."""
    entries: dict[str, Any] = {}
    for part in axes:
        handles, labels = part.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def legend_above(axes: Axes, heading: str) -> None:
    """Put the axes' heading and under it the legend above the data."""
    axes.legend(
        title=plain(heading),
        title_fontproperties={"weight": "bold", "size": SETTINGS["axes.titlesize"]},
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0.1,
    )
