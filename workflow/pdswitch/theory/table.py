"""k* as a step function of the termination probability, for policies that estimate it on the way.

A table is a pair (p_edges, thresholds): `thresholds[numpy.searchsorted(p_edges, p)]` is k* at p.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.theory.closed_form import harmonic_gain, optimal_threshold
from pdswitch.theory.curves import DecodeCurve, FloatArray, PrefillCurve
from pdswitch.theory.overshoot import k_star_measured
from pdswitch.theory.validation import PerCompletion, check_not_negative, check_probability

IntArray = NDArray[np.int64]

# Where no formula gives the edges: how many p are looked at, and how near an edge is bisected.
_POINTS = 96
_RELATIVE_PRECISION = 1e-4


def transition_points(n_slots: int, alpha_p: float, alpha_d: float) -> tuple[FloatArray, IntArray]:
    """Return the p at which the closed-form k* steps up by one, and k* just above each.

    Exact: k* > k if and only if p > g(k)·alpha_d/alpha_p, see `harmonic_gain`.

    Args:
        n_slots: N, slots.
        alpha_p: fixed time of a prefill step, seconds.
        alpha_d: fixed time of a decode step, seconds.

    Returns:
        Ascending termination probabilities below 1, and the k* reached there (2, 3, ...).

    Raises:
        InputError: for arguments outside their range.
    """
    gain = harmonic_gain(n_slots)
    check_not_negative("alpha_p", alpha_p)
    check_not_negative("alpha_d", alpha_d)
    if alpha_p == 0.0:
        edges = np.full(gain.size, np.inf)
    else:
        with np.errstate(over="ignore"):
            edges = gain * alpha_d / alpha_p
    # Without fixed decode time k* = N at any p: there is no transition in (0, 1).
    keep = (edges > 0.0) & (edges < 1.0)
    return edges[keep], np.flatnonzero(keep) + 2


def threshold_table(
    n_slots: int,
    alpha_p: float,
    alpha_d: float,
    p_min: float,
    p_max: float,
    beta_d: float = 0.0,
    per_completion: PerCompletion = "expected",
) -> tuple[FloatArray, IntArray]:
    """Return the closed-form table p -> k* over [p_min, p_max].

    With ``expected`` the edges are the exact transition points. With ``single_exit`` no formula
    gives them, and they are searched as in `threshold_table_measured`.

    Args:
        n_slots: N, slots.
        alpha_p: fixed time of a prefill step, seconds.
        alpha_d: fixed time of a decode step, seconds.
        p_min: least termination probability that is looked up.
        p_max: largest.
        beta_d: decode time per active request, seconds; only ``single_exit`` depends on it.
        per_completion: see `optimal_threshold`.

    Returns:
        Edges, ascending, length m, and thresholds, length m + 1. Below p_min the table goes on
        with k*(p_min), above p_max with k*(p_max).

    Raises:
        InputError: for arguments outside their range.
    """
    _check_range(p_min, p_max)
    if per_completion != "expected":
        return _searched_table(
            lambda p: optimal_threshold(n_slots, p, alpha_p, alpha_d, beta_d, per_completion),
            p_min,
            p_max,
        )
    edges, above = transition_points(n_slots, alpha_p, alpha_d)
    if alpha_d == 0.0 and alpha_p > 0.0:
        return edges, np.array([n_slots])
    below = int(np.searchsorted(edges, p_min))
    inside = slice(below, int(np.searchsorted(edges, p_max)))
    first = int(above[below - 1]) if below else 1
    return edges[inside], np.concatenate(([first], above[inside]))


def threshold_table_measured(
    n_slots: int,
    prefill: PrefillCurve,
    decode: DecodeCurve,
    mean_prompt_tokens: float,
    p_min: float,
    p_max: float,
) -> tuple[FloatArray, IntArray]:
    """Return the table p -> `k_star_measured` over [p_min, p_max].

    With measured curves k* need not rise with p, so p is scanned on a logarithmic grid and every
    change between two neighbours is bisected until the two thresholds differ by at most 1 or the
    interval is narrower than 1e-4 of p. A step that returns within one grid interval
    is not seen; between two such p the curves differ by next to nothing.

    Args:
        n_slots: N, slots.
        prefill: seconds of a refill of so many tokens.
        decode: seconds of a decode step of j requests holding so many KV tokens.
        mean_prompt_tokens: mean prompt length, tokens.
        p_min: least termination probability that is looked up.
        p_max: largest.

    Returns:
        As `threshold_table`.

    Raises:
        InputError: for arguments outside their range.
    """
    _check_range(p_min, p_max)
    return _searched_table(
        lambda p: k_star_measured(n_slots, p, prefill, decode, mean_prompt_tokens)[0], p_min, p_max
    )


def _searched_table(
    k_star: Callable[[float], int], p_min: float, p_max: float
) -> tuple[FloatArray, IntArray]:
    edges: list[float] = []
    thresholds = [k_star(p_min)]
    grid = np.geomspace(p_min, p_max, _POINTS) if p_max > p_min else np.array([p_min])
    # The grid ends where it was asked to: rounding must not leave the range of probabilities.
    grid[-1] = p_max
    for low, high in pairwise(grid):
        pending = [(float(low), thresholds[-1], float(high), k_star(float(high)))]
        while pending:
            left, k_left, right, k_right = pending.pop()
            if k_left == k_right:
                continue
            if right / left - 1.0 <= _RELATIVE_PRECISION:
                edges.append(float(np.sqrt(left * right)))
                thresholds.append(k_right)
                continue
            middle = float(np.sqrt(left * right))
            k_middle = k_star(middle)
            # The left half is taken up first, so that the edges come in order.
            pending.append((middle, k_middle, right, k_right))
            pending.append((left, k_left, middle, k_middle))
    return np.array(edges), np.array(thresholds)


def _check_range(p_min: float, p_max: float) -> None:
    if check_probability(p_min) > check_probability(p_max):
        raise InputError(f"p_min must not exceed p_max, got {p_min} > {p_max}")
