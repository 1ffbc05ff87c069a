"""Step times of the profile, their fits, and what the straight fits leave over."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdswitch.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    house_style,
    legend_above,
    new_figure,
    title,
    whole_numbers,
)
from pdswitch.profiling.fit import decode_steps, prefill_steps

PLACE = 2
SETTINGS = ("num_prefill_samples", "num_decode_repeats")

Floats = NDArray[np.float64]
# More points than this become an image inside the PDF, which would grow by megabytes.
MOST_VECTOR_POINTS = 2000
SHADE = "#F1F1F1"


# A step this many times as long as the tabulated median at its size was held up.
STALLED = 1.6


class Samples(NamedTuple):
    """Measured steps of one kind.

    Attributes:
        size: prompt tokens, or decoding requests, of each.
        seconds: time of each.
    """

    size: Floats
    seconds: Floats

    def stalled(self, sizes: list[float], medians_s: list[float]) -> NDArray[np.bool_]:
        """Say which steps are far above the tabulated medians."""
        return self.seconds > STALLED * np.interp(self.size, sizes, medians_s)


def draw(dataset: str, steps: pd.DataFrame, threshold: dict[str, Any]) -> Figure:
    """Draw prefill over tokens and decode over batch size, each with residuals below.

    Args:
        dataset: its name; the straight prefill fit is made over the range that its refills visit.
        steps: step records of the profile, with the columns `run` and `kind`.
        threshold: content of `threshold.json`, for the fits.
    """
    with house_style():
        figure = new_figure(6.4)
        timing = threshold["timing"]
        axes = figure.subplots(4, 1, height_ratios=(3, 1, 3, 1))
        _draw_prefill(axes[0], axes[1], samples_of(steps, "prefill"), timing["prefill"])
        _draw_decode(axes[2], axes[3], samples_of(steps, "decode"), timing["decode"])
        title(figure, f"step times, N = {timing['n_slots']}, fitted for {dataset}")
    return figure


def caption(results: dict[str, Any]) -> str:
    """Return what stands under it, with the numbers it rests on."""
    prefill, decode = results["timing"]["prefill"]["linear"], results["timing"]["decode"]["linear"]
    hinge = results["timing"]["prefill"]["hinge"]
    low, high = prefill["token_range"]
    return (
        f"Step times. Prefill: straight line over {low:.0f} to {high:.0f} tokens, what refills of "
        f"this dataset visit ({prefill['n']} steps, R² {prefill['r_squared']:.3f}); "
        f"hinge over all tokens (R² {hinge['r_squared']:.3f}). Decode: straight line in the "
        f"decoding requests ({decode['n']} steps, R² {decode['r_squared']:.3f}). "
        "Each fit ± its standard errors, with the hinge and the tabulated medians. Below each: "
        "measured over straight fit, less one."
    )


def samples_of(steps: pd.DataFrame, kind: str) -> Samples:
    """Return the steps of one kind that the fits are made from.

    Args:
        steps: step records of the profile.
        kind: ``prefill`` or ``decode``.
    """
    if kind == "prefill":
        chosen = prefill_steps(steps)
        size = chosen["prefill_tokens"]
    else:
        chosen = decode_steps(steps)
        size = chosen["decode_requests"]
    return Samples(size.to_numpy(np.float64), chosen["duration_s"].to_numpy(np.float64))


def _draw_prefill(top: Axes, bottom: Axes, samples: Samples, fit: dict[str, Any]) -> None:
    line, hinge, table = fit["linear"], fit["hinge"], fit["table"]
    tokens = np.linspace(0, samples.size.max(), 400)
    straight = line["alpha_p"] + line["beta_p"] * tokens
    bent = np.maximum(hinge["floor_s"], hinge["offset_s"] + hinge["rate_s_per_token"] * tokens)
    stalled = samples.stalled(table["tokens"], table["seconds"])
    _draw_samples(top, samples, stalled, straight.max())
    top.plot(
        tokens,
        1e3 * straight,
        color=RED,
        label=rf"line: $\alpha_p$ = {_pm(1e3, line, 'alpha_p')} ms, "
        rf"$\beta_p$ = {_pm(1e6, line, 'beta_p')} µs/token",
    )
    top.plot(
        tokens,
        1e3 * bent,
        color=GREEN,
        linestyle=(0, (4, 1, 1, 1)),
        label=f"hinge: {_pm(1e3, hinge, 'floor_s')} ms, then "
        f"{_pm(1e6, hinge, 'rate_s_per_token')} µs/token",
    )
    _draw_table(top, table["tokens"], table["seconds"])
    top.set_ylabel("prefill step, ms")
    legend_above(top, f"prefill, straight fit R² = {line['r_squared']:.3f}")
    _draw_residuals(bottom, samples, stalled, line["alpha_p"] + line["beta_p"] * samples.size)
    bottom.set_xlabel("prompt tokens in the step (line fitted on grey)")
    for axes in (top, bottom):
        axes.axvspan(*line["token_range"], color=SHADE, linewidth=0, zorder=0)
    _share_x(top, bottom)


def _draw_decode(top: Axes, bottom: Axes, samples: Samples, fit: dict[str, Any]) -> None:
    line, table = fit["linear"], fit["table"]
    active = np.array([0, samples.size.max()])
    straight = line["alpha_d"] + line["beta_d"] * active
    stalled = samples.stalled(table["requests"], table["seconds"])
    _draw_samples(top, samples, stalled, straight.max())
    top.plot(
        active,
        1e3 * straight,
        color=RED,
        label=rf"line: $\alpha_d$ = {_pm(1e3, line, 'alpha_d')} ms, "
        rf"$\beta_d$ = {_pm(1e6, line, 'beta_d')} µs/request",
    )
    _draw_table(top, table["requests"], table["seconds"])
    top.set_ylabel("decode step, ms")
    legend_above(top, f"decode, straight fit R² = {line['r_squared']:.3f}")
    _draw_residuals(bottom, samples, stalled, line["alpha_d"] + line["beta_d"] * samples.size)
    bottom.set_xlabel("decoding requests j")
    _share_x(top, bottom)
    whole_numbers(bottom, "x")


def _draw_samples(
    axes: Axes, samples: Samples, stalled: NDArray[np.bool_], fitted_s: float
) -> None:
    """Draw the steps; stalled ones, which would flatten all others, as arrows at the upper edge."""
    usual = samples.seconds[~stalled]
    top = 1.1 * max(fitted_s, *usual)
    _scatter(axes, samples.size[~stalled], 1e3 * usual, f"{usual.size} measured steps")
    axes.set_ylim(0, 1e3 * top)
    if stalled.any():
        longest = 1e3 * samples.seconds.max()
        axes.plot(
            samples.size[stalled],
            np.full(stalled.sum(), 0.96e3 * top),
            "^",
            color=BLUE,
            label=f"{stalled.sum()} held up, as long as {longest:.0f} ms",
        )


def _draw_table(axes: Axes, sizes: list[float], seconds: list[float]) -> None:
    axes.plot(
        sizes,
        1e3 * np.array(seconds),
        color=ORANGE,
        marker="s",
        markersize=3,
        linewidth=0.7,
        label="tabulated medians",
    )


def _draw_residuals(
    axes: Axes, samples: Samples, stalled: NDArray[np.bool_], fitted: Floats
) -> None:
    percent = 100 * (samples.seconds / fitted - 1)[~stalled]
    limit = max(5.0, 1.15 * float(np.abs(percent).max()))
    _scatter(axes, samples.size[~stalled], percent)
    axes.axhline(0, color=RED)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("residual, %")


def _scatter(axes: Axes, x: Floats, y: Floats, label: str = "_steps") -> None:
    axes.plot(
        x,
        y,
        "o",
        color=BLUE,
        alpha=0.45,
        markersize=2.5,
        markeredgewidth=0,
        label=label,
        rasterized=x.size > MOST_VECTOR_POINTS,
    )


def _share_x(top: Axes, bottom: Axes) -> None:
    top.sharex(bottom)
    top.tick_params(labelbottom=False)
    bottom.set_xlim(0, None)


def _pm(unit: float, fit: dict[str, Any], name: str) -> str:
    """Write value ± standard error in the unit, to two digits of the error."""
    value = unit * fit[name]
    if fit[f"se_{name}"] is None:  # no sample supports it
        return f"{value:.3g} ± ?"
    error = unit * fit[f"se_{name}"]
    places = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 2
    return f"{value:.{places}f} ± {error:.{places}f}"
