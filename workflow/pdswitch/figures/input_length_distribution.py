"""How long the prompts are."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pdswitch.errors import InputError
from pdswitch.figures.lengths import draw_centre, whole_token_bins
from pdswitch.figures.style import SKY, house_style, legend_below, new_figure, title

PLACE = 3


def draw(dataset: str, prompts: pd.DataFrame) -> Figure:
    """Draw a histogram of the prompt lengths.

    Args:
        dataset: its name.
        prompts: requests of the dataset, with the column `prompt_tokens`.

    Raises:
        InputError: if there are none.
    """
    lengths = prompts["prompt_tokens"].to_numpy()
    if lengths.size == 0:
        raise InputError(f"{dataset} has no prompts to draw; give at least one request")
    with house_style():
        figure = new_figure(2.5)
        axes = figure.subplots()
        axes.hist(lengths, whole_token_bins(int(lengths.max())), color=SKY)
        draw_centre(axes, lengths)
        axes.set_xlabel("prompt tokens, chat template included")
        axes.set_ylabel("requests")
        title(
            figure, f"{dataset}: {lengths.size} prompts, {lengths.min()} to {lengths.max()} tokens"
        )
        legend_below(figure, axes)
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    mean = results["offline_estimation"]["mean_prompt_tokens"]
    return f"Prompt lengths, chat template included; {mean:.1f} tokens in the mean."
