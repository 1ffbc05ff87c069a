"""Step times of the profile and their fits."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdswitch.figures.style import BLUE, GREEN, ORANGE, RED, style


def draw(steps: pd.DataFrame, timing: dict[str, Any]) -> Figure:
    """Draw prefill over tokens and decode over batch size, with residuals below.

    Args:
        steps: of the profile, with the column `kind`.
        timing: the fits, as in `threshold.json`.
    """
    prefill = steps[(steps["kind"] == "prefill") & (steps["prefill_tokens"] > 0)]
    decode = steps[(steps["decode_requests"] > 0) & (steps["prefill_tokens"] == 0)]
    with style():
        figure, axes = plt.subplots(
            2, 2, figsize=(10.5, 6), height_ratios=(3, 1), sharex="col"
        )
        _prefill(axes[:, 0], prefill, timing["prefill"])
        _decode(axes[:, 1], decode, timing["decode"])
    return figure


def _prefill(axes: "np.ndarray[Any, Any]", steps: pd.DataFrame, fit: dict[str, Any]) -> None:
    top, bottom = axes
    tokens, ms = steps["prefill_tokens"], 1e3 * steps["duration_s"]
    line, hinge, table = fit["linear"], fit["hinge"], fit["table"]
    x = np.linspace(0, tokens.max(), 300)
    alpha, beta = line["alpha_p"], line["beta_p"]
    top.scatter(tokens, ms, s=14, color=BLUE, alpha=0.6, label="prefill steps")
    top.plot(
        x,
        1e3 * (alpha + beta * x),
        color=RED,
        label=f"straight fit: {1e3 * alpha:.2f} ± {1e3 * line['se_alpha_p']:.2f} ms "
        f"+ {1e6 * beta:.1f} ± {1e6 * line['se_beta_p']:.1f} µs/token",
    )
    knee = np.maximum(hinge["floor_s"], hinge["offset_s"] + hinge["rate_s_per_token"] * x)
    top.plot(x, 1e3 * knee, color=GREEN, linestyle="--", label="hinge")
    top.plot(
        table["tokens"], 1e3 * np.array(table["seconds"]), color=ORANGE, marker="s", markersize=3,
        linewidth=0.8, label="table (bin medians)",
    )
    low, high = line["token_range"]
    top.axvspan(low, high, color="#F2F2F2", zorder=0, label="range of the straight fit")
    top.set_ylabel("prefill step, ms")
    _residuals(bottom, tokens, 100 * ((alpha + beta * tokens) * 1e3 / ms - 1))
    bottom.set_xlabel("prompt tokens in the step")
    _legend_above(top)


def _decode(axes: "np.ndarray[Any, Any]", steps: pd.DataFrame, fit: dict[str, Any]) -> None:
    top, bottom = axes
    active, ms = steps["decode_requests"], 1e3 * steps["duration_s"]
    line, table = fit["linear"], fit["table"]
    x = np.array([1, active.max()])
    alpha, beta = line["alpha_d"], line["beta_d"]
    top.scatter(active, ms, s=8, color=BLUE, alpha=0.3, label="decode steps")
    top.plot(
        x,
        1e3 * (alpha + beta * x),
        color=RED,
        label=f"straight fit: {1e3 * alpha:.2f} ± {1e3 * line['se_alpha_d']:.2f} ms "
        f"+ {1e6 * beta:.0f} ± {1e6 * line['se_beta_d']:.0f} µs/request",
    )
    top.plot(
        table["requests"], 1e3 * np.array(table["seconds"]), color=ORANGE, marker="s",
        markersize=3, linewidth=0.8, label="table (medians)",
    )
    top.set_ylabel("decode step, ms")
    # A few stalled steps would flatten everything else; they stay in the data.
    top.set_ylim(0, 1.5 * ms.quantile(0.98))
    _residuals(bottom, active, 100 * ((alpha + beta * active) * 1e3 / ms - 1))
    bottom.set_xlabel("decoding requests")
    _legend_above(top)


def _residuals(axes: Axes, x: pd.Series, percent: pd.Series) -> None:
    axes.axhline(0, color=RED, linewidth=1)
    axes.scatter(x, percent, s=6, color=BLUE, alpha=0.4)
    axes.set_ylabel("fit − data, %")
    axes.set_ylim(-50, 50)


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=1)
