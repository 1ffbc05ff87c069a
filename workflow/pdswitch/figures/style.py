"""How every figure looks, and how it is saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pdswitch.files import atomic_path

# Okabe and Ito's palette: told apart under the common colour-vision deficiencies.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PURPLE, SKY, GREY, BLACK = "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F", "#000000"

SETTINGS = {
    "figure.figsize": (7.2, 4.4),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
}
# Equal data, equal bytes: no clock in the files.
FIXED_DATE = datetime(2000, 1, 1, tzinfo=UTC)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style."""
    with mpl.rc_context(SETTINGS):
        yield


def save(figure: Figure, stem: Path) -> None:
    """Write a figure as `stem.pdf` and `stem.png`, and close it."""
    for ending, metadata in (("pdf", {"CreationDate": FIXED_DATE}), ("png", {"Software": None})):
        with atomic_path(stem.with_name(f"{stem.name}.{ending}")) as aside:
            figure.savefig(aside, format=ending, metadata=metadata)
    plt.close(figure)
