"""How long the prompts are."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.figures.lengths import draw_centre, whole_token_bins
from pdswitch.figures.style import SKY, house_style, legend_below, new_figure, title


def draw(dataset: str, prompt_tokens: NDArray[Any]) -> Figure:
    """Draw a histogram of the prompt lengths.

    Args:
        dataset: its name.
        prompt_tokens: one per request.

    Raises:
        InputError: if there are none.
    """
    lengths = np.asarray(prompt_tokens)
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
