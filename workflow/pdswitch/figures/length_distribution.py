"""Histograms of prompt and output lengths."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pdswitch.figures.style import BLUE, GREY, RED, style

BINS = 40


def draw_input(dataset: str, prompt_tokens: pd.Series) -> Figure:
    """Draw the prompt lengths.

    Args:
        dataset: its name.
        prompt_tokens: one per request.
    """
    with style():
        figure, axes = plt.subplots()
        axes.hist(prompt_tokens, bins=_bins(prompt_tokens), color=BLUE, alpha=0.75)
        _mean_line(axes, prompt_tokens.mean())
        axes.set_xlabel("prompt tokens")
        axes.set_ylabel("requests")
        axes.set_title(f"{dataset}: {len(prompt_tokens)} prompts", fontsize=10)
        axes.legend()
    return figure


def draw_output(dataset: str, requests: pd.DataFrame, termination: dict[str, Any]) -> Figure:
    """Draw the natural output lengths with the geometric law of the estimated p.

    Args:
        dataset: its name.
        requests: of the termination run.
        termination: content of `termination.json`.
    """
    lengths = requests["output_tokens"]
    bins = _bins(lengths)
    p = termination["termination_probability"]
    with style():
        figure, axes = plt.subplots()
        ended, cut = lengths[~requests["truncated"]], lengths[requests["truncated"]]
        axes.hist(
            [ended, cut], bins=bins, stacked=True, color=[BLUE, GREY], alpha=0.75,
            label=["ended by themselves", f"cut at the limit ({len(cut)})"],
        )
        expected = len(lengths) * -np.diff((1 - p) ** (bins - 1).clip(0))
        axes.step(
            bins, np.append(expected, expected[-1]), where="post", color=RED,
            label=f"geometric law, p = {p:.4f} ± {termination['standard_error']:.4f}",
        )
        _mean_line(axes, lengths.mean())
        axes.set_xlabel("output tokens")
        axes.set_ylabel("requests")
        axes.set_title(
            f"{dataset}: {len(lengths)} answers, coefficient of variation "
            f"{termination['cv']:.2f} (geometric: about 1)",
            fontsize=10,
        )
        axes.legend()
    return figure


def _bins(lengths: pd.Series) -> "np.ndarray[Any, np.dtype[np.float64]]":
    top = int(lengths.max()) + 1
    width = max(1, -(-top // BINS))
    return np.arange(1, top + width + 1, width, dtype=np.float64)


def _mean_line(axes: plt.Axes, mean: float) -> None:
    axes.axvline(mean, color="black", linestyle=":", label=f"mean {mean:.1f}")
