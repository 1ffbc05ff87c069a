"""Robust linear least squares with standard errors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HUBER_K = 1.345  # 95 % efficiency under normal errors
MAD_TO_SIGMA = 1.4826
ITERATIONS = 50


class LinearFit(NamedTuple):
    """Coefficients of y ≈ X·b.

    Attributes:
        coefficients: b.
        covariance: of b, robust against unequal variances (HC3 on the weighted residuals).
        r_squared: of all points, unweighted.
        rmse: root mean square residual, unweighted.
    """

    coefficients: Floats
    covariance: Floats
    r_squared: float
    rmse: float


def fit_linear(design: Floats, y: Floats, scale: Floats | None = None) -> LinearFit:
    """Fit by Huber's M-estimator, iteratively reweighted; `b` is not constrained.

    Args:
        design: X, shape (n, m).
        y: shape (n,).
        scale: expected size of each point's error, up to a factor; None for all equal. Step
            times err in proportion to themselves.

    Raises:
        ValueError: if there are fewer points than coefficients.
    """
    n, m = design.shape
    if n < m:
        raise ValueError(f"{m} coefficients cannot be fitted to {n} points; profile more of them")
    scale = np.ones(n) if scale is None else scale
    rows, target = design / scale[:, None], y / scale
    weights = np.ones(n)
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
    residual = (target - rows @ b) * root / np.maximum(1 - leverage, 1e-6)
    meat = (weighted * residual[:, None] ** 2).T @ weighted
    plain = y - design @ b
    total = ((y - y.mean()) ** 2).sum()
    return LinearFit(
        coefficients=b,
        covariance=bread @ meat @ bread,
        r_squared=float(1 - (plain**2).sum() / total) if total > 0 else 1.0,
        rmse=float(np.sqrt((plain**2).mean())),
    )
