"""Robust linear least squares with standard errors."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pdswitch.errors import InputError

Floats = NDArray[np.float64]

HUBER_K = 1.345  # 95 % efficiency under normal errors
MAD_TO_SIGMA = 1.4826
ITERATIONS = 50
LEAST_MISSING = 0.05  # a group that nearly decides the fit alone keeps a finite error


class LinearFit(NamedTuple):
    """Coefficients of y ≈ X·b.

    Attributes:
        coefficients: b.
        covariance: of b, from leaving groups out (HC3 on the weighted residuals): robust against
            unequal variances, and against errors that the points of a group share.
        r_squared: of all points, unweighted.
        rmse: root mean square residual, unweighted.
    """

    coefficients: Floats
    covariance: Floats
    r_squared: float
    rmse: float


def fit_linear(
    design: Floats, y: Floats, scale: Floats | None = None, groups: NDArray[Any] | None = None
) -> LinearFit:
    """Fit by Huber's M-estimator, iteratively reweighted; `b` is not constrained.

    Args:
        design: X, shape (n, m).
        y: shape (n,).
        scale: expected size of each point's error, up to a factor; None for all equal. Step
            times err in proportion to themselves.
        groups: shape (n,), points with the same label err together, as the steps of one run do;
            None for all independent.

    Raises:
        InputError: if there are fewer points than coefficients.
    """
    n, m = design.shape
    if n < m:
        raise InputError(
            f"{m} coefficients cannot be fitted to {n} points; raise num_prefill_samples and "
            "num_decode_repeats"
        )
    scale = np.ones(n) if scale is None else scale
    rows, target = design / scale[:, None], y / scale
    weights: Floats = np.ones(n)
    b: Floats = np.zeros(m)
    for _ in range(ITERATIONS):
        root = np.sqrt(weights)
        found, *_ = np.linalg.lstsq(rows * root[:, None], target * root, rcond=None)
        new = np.asarray(found, dtype=np.float64)
        residual = target - rows @ new
        sigma = MAD_TO_SIGMA * np.median(np.abs(residual))
        if np.allclose(new, b, rtol=1e-10, atol=0) or sigma == 0:
            b = new
            break
        b = new
        weights = np.minimum(1.0, HUBER_K * sigma / np.maximum(np.abs(residual), 1e-300))
    root = np.sqrt(weights)
    weighted = rows * root[:, None]
    bread = np.linalg.pinv(weighted.T @ weighted)
    leverage = np.einsum("ij,jk,ik->i", weighted, bread, weighted)
    # What a group would be missed by, were it left out of the fit.
    place = _group_numbers(n, m, groups)
    missing = np.maximum(1 - np.bincount(place, leverage), LEAST_MISSING)
    residual = (target - rows @ b) * root / missing[place]
    scores = np.zeros((missing.size, m))
    np.add.at(scores, place, weighted * residual[:, None])
    r_squared, rmse = goodness(y, design @ b)
    return LinearFit(b, bread @ (scores.T @ scores) @ bread, r_squared, rmse)


def goodness(y: Floats, predicted: Floats) -> tuple[float, float]:
    """Return R² and the root mean square residual, unweighted."""
    residual = y - predicted
    total = ((y - y.mean()) ** 2).sum()
    r_squared = float(1 - (residual**2).sum() / total) if total > 0 else 1.0
    return r_squared, float(np.sqrt((residual**2).mean()))


def _group_numbers(n: int, m: int, groups: NDArray[Any] | None) -> NDArray[np.int64]:
    """Return the number of each point's group, shape (n,)."""
    if groups is None:
        return np.arange(n)
    labels, place = np.unique(groups, return_inverse=True)
    # As many groups as coefficients leave nothing to tell how groups differ.
    return place if labels.size > m else np.arange(n)
