"""What both length distributions share: bins of whole tokens, and the lines of mean and median."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pdswitch.figures.style import BLACK

MOST_BINS = 40


def whole_token_bins(longest: int) -> list[int]:
    """Return edges of at most 40 equal bins over 1..longest; a bin holds low <= length < high."""
    width = -(-longest // MOST_BINS)
    return list(range(1, longest + width + 1, width))


def draw_centre(axes: Axes, lengths: NDArray[Any]) -> None:
    """Mark mean and median."""
    axes.axvline(
        lengths.mean(),
        color=BLACK,
        linestyle=(0, (1, 1.2)),
        label=f"mean {lengths.mean():.1f}",
    )
    axes.axvline(
        np.median(lengths), color=BLACK, linewidth=0.6, label=f"median {np.median(lengths):.0f}"
    )
