"""How long the answers are when they end by themselves, and the geometric law of the theory."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.figures.lengths import draw_centre, whole_token_bins
from pdswitch.figures.style import (
    GREEN,
    GREY,
    RED,
    SKY,
    house_style,
    legend_below,
    new_figure,
    title,
)
from pdswitch.report.wording import percent, significant

PLACE = 4
SETTINGS = ("max_output_tokens", "offline_p_estimator", "n_offline")


def draw(dataset: str, requests: pd.DataFrame, termination: dict[str, Any]) -> Figure:
    """Draw a histogram of the natural output lengths, cut ones apart, with two geometric laws.

    One has the p that k* rests on, the other is fitted to all answers with the cut ones as
    censored. Beyond the limit each law's rest is counted where the answers were cut.

    Args:
        dataset: its name.
        requests: request records of the termination run.
        termination: content of `termination.json`.

    Raises:
        InputError: if there are no requests.
    """
    if requests.empty:
        raise InputError(f"{dataset} has no answers to draw; give at least one request")
    lengths = requests["output_tokens"].to_numpy(np.int64)
    cut = requests["truncated"].to_numpy(bool)
    bins = whole_token_bins(int(lengths.max()))
    share = 100 * cut.mean()
    laws = (
        (
            termination["termination_probability"],
            RED,
            "-",
            rf"geometric, $p$ = {termination['termination_probability']:.4f}"
            f" ± {termination['standard_error']:.4f} (for $k^*$)",
        ),
        (
            termination["all_requests"]["censored"]["p"],
            GREEN,
            (0, (4, 1, 1, 1)),
            rf"geometric, $p$ = {termination['all_requests']['censored']['p']:.4f} (all, censored)",
        ),
    )
    with house_style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        axes.hist(
            [lengths[~cut], lengths[cut]],
            bins,
            stacked=True,
            color=[SKY, GREY],
            label=["ended by themselves", f"cut at the limit: {cut.sum()} ({share:.1f} %)"],
        )
        for p, color, linestyle, label in laws:
            expected = lengths.size * geometric_shares(p, bins, whole=bool(cut.any()))
            axes.stairs(
                expected,
                bins,
                color=color,
                linestyle=linestyle,
                linewidth=1.2,
                baseline=None,
                label=label,
            )
        draw_centre(axes, lengths)
        axes.set_xlabel("output tokens")
        axes.set_ylabel("requests")
        title(
            figure,
            f"{dataset}: {lengths.size} answers, coefficient of variation {termination['cv']:.2f}",
        )
        legend_below(figure, axes, columns=1)
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    offline = results["offline_estimation"]
    share = percent(offline["truncated"] / offline["n"])
    return (
        f"Output lengths of {offline['n']} answers that could end by themselves: "
        f"{offline['truncated']} ({share}) were cut at the limit, {offline['degenerate']} end in a "
        f"repetition loop. Mean {offline['mean_output_tokens']:.1f} tokens, coefficient of "
        f"variation {offline['cv']:.2f} (geometric law: just below 1). k* rests on "
        f"p = {significant(offline['termination_probability'])} ± "
        f"{significant(offline['standard_error'], 2)} from the first {offline['n_offline']} "
        f"answers ({offline['method']}). The second law is fitted to all "
        "answers, cut ones censored."
    )


def geometric_shares(p: float, bins: list[int], whole: bool) -> NDArray[np.float64]:
    """Return the geometric law's probability of each bin.

    Args:
        p: termination probability per token.
        bins: edges; a bin holds low <= length < high.
        whole: whether the last bin takes all longer lengths too.
    """
    survival = (1 - p) ** (np.array(bins) - 1.0)
    if whole:
        survival[-1] = 0
    return -np.diff(survival)
