"""All datasets of a config side by side: a table of counts and lengths, and their histograms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.figures.style import BLACK, BLUE, ORANGE, house_style, new_figure, note, plain

STATISTICS = ("mean", "median", "p95", "max", "cv")
ROW_HEIGHT_IN = 1.45
BINS = 40


def overview(manifests: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per dataset: requests, repeated ones, skipped records, lengths in tokens.

    Args:
        manifests: contents of `prompts.json` by the dataset's name.
    """
    return pd.DataFrame([_row(name, manifest) for name, manifest in manifests.items()])


def _row(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    outputs = manifest["reference_output_tokens"]
    return {
        "dataset": name,
        "kind": manifest["options"]["kind"],
        "requests": manifest["rows"],
        "reused": manifest["reused"],
        "skipped": sum(manifest["skipped"].values()),
        **{f"input_{key}": manifest["prompt_tokens"][key] for key in STATISTICS},
        **{f"output_{key}": outputs.get(key) for key in STATISTICS},
        "geometric_ks_distance": outputs.get("geometric_ks_distance"),
        "sha256": manifest["sha256"],
    }


def draw(lengths: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw for each dataset how long its prompts and its own answers are.

    Args:
        lengths: by name, frames with prompt_tokens and reference_output_tokens.

    Raises:
        InputError: if there are no datasets.
    """
    if not lengths:
        raise InputError("there are no datasets to draw; give the manifest of at least one")
    with house_style():
        figure = new_figure(0.5 + ROW_HEIGHT_IN * len(lengths))
        rows = figure.subplots(len(lengths), 2, squeeze=False, sharex="col")
        for (left, right), (name, frame) in zip(rows, lengths.items(), strict=True):
            _histogram(left, frame["prompt_tokens"].to_numpy(), BLUE)
            known = frame["reference_output_tokens"].dropna().to_numpy(dtype=np.int64)
            _histogram(right, known, ORANGE)
            left.set_ylabel("requests")
            left.annotate(
                plain(name),
                (0, 1),
                xytext=(0, 14),
                xycoords="axes fraction",
                textcoords="offset points",
                fontweight="bold",
            )
        rows[-1, 0].set_xlabel("prompt tokens")
        rows[-1, 1].set_xlabel("answer tokens")
    return figure


def _histogram(axes: Axes, lengths: NDArray[Any], colour: str) -> None:
    # Lengths span decades: equal steps of the logarithm show all of them.
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if lengths.size == 0:
        note(axes, "not known")
        axes.set_yticks([])
        return
    edges = np.unique(np.rint(np.geomspace(1, int(lengths.max()) + 1, BINS + 1)))
    axes.hist(lengths, edges.tolist(), color=colour)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
    axes.axvline(lengths.mean(), color=BLACK, linewidth=0.8, linestyle=(0, (1, 1.2)))
    axes.set_title(f"mean {lengths.mean():,.0f}", loc="right", fontweight="normal")
