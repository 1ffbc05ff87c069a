"""Figures to files: PDF and PNG, aside and renamed, equal bytes for equal data."""

from pathlib import Path

from matplotlib.figure import Figure

from pdswitch.figures.style import house_style
from pdswitch.files import atomic_path

# Without these a file would name the clock and the version of matplotlib.
METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": "pdswitch"},
    "png": {"Software": None},
}


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF (fonts embedded) and PNG.

    Args:
        figure: what to write.
        stem: path without ending; its folder is made if need be.

    Returns:
        The files written.
    """
    written = []
    for ending, metadata in METADATA.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        with house_style(), atomic_path(path) as aside:
            figure.savefig(aside, format=ending, metadata=metadata)
        written.append(path)
    return written
