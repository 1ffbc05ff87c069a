"""k* for many slots: the fraction theta of the slots to wait for."""

import numpy as np
from numpy.typing import ArrayLike

from pdswitch.errors import InputError
from pdswitch.theory.curves import FloatArray

# Below this y, y - log(1+y) loses more than 1e-12 of itself to cancellation and a series is used.
_SERIES_BELOW = 1e-3
_NEWTON_STEPS = 8


def fixed_cost_ratio(termination_probability: float, alpha_p: float, alpha_d: float) -> float:
    """Return p·alpha_p/alpha_d, which decides k*; infinity without a fixed decode time.

    Times of both kinds that are 0 leave it undefined: nothing is lost by switching at once, so 0.
    """
    if alpha_d > 0.0:
        return termination_probability * alpha_p / alpha_d
    return float("inf") if alpha_p > 0.0 else 0.0


def asymptotic_theta(ratio: ArrayLike) -> FloatArray:
    """Return theta in [0, 1) with theta/(1-theta) + ln(1-theta) = ratio; k* is about theta·N.

    With y = theta/(1-theta) the equation is y - ln(1+y) = ratio, convex and rising, and
    ratio + sqrt(ratio² + 2·ratio) lies at or right of its root, so that Newton's steps from there
    converge from one side. Small ratios: theta is about sqrt(2·ratio).

    Args:
        ratio: p·alpha_p/alpha_d, any shape, not negative; infinity gives 1.

    Returns:
        theta, in the shape of `ratio`.

    Raises:
        InputError: if a ratio is negative or NaN.
    """
    target = np.asarray(ratio, dtype=float)
    if not (target >= 0.0).all():
        raise InputError("ratio = p·alpha_p/alpha_d must be at least 0")
    finite = np.where(np.isfinite(target), target, 0.0)
    y = finite + np.sqrt(finite) * np.sqrt(finite + 2.0)
    for _ in range(_NEWTON_STEPS):
        # The derivative of y - ln(1+y) is y/(1+y); at y = 0 the root is found already.
        step = (_excess(y) - finite) * (1.0 + y) / np.where(y > 0.0, y, 1.0)
        y = np.maximum(y - step, 0.0)
    return np.where(np.isfinite(target), y / (1.0 + y), 1.0)


def _excess(y: FloatArray) -> FloatArray:
    """Return y - ln(1+y) without cancellation."""
    s = np.minimum(y, _SERIES_BELOW)
    series = s * s * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s * (1 / 5 - s * (1 / 6 - s / 7)))))
    return np.where(y < _SERIES_BELOW, series, y - np.log1p(y))
