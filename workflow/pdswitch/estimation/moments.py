"""Stationary mean and standard deviation of the estimators, exact for geometric lengths."""

import math

import numpy as np

from pdswitch.errors import InputError
from pdswitch.estimation.lengths import FloatArray
from pdswitch.estimation.moving_average import check_smoothing


def ema_inverse_moments(termination_probability: float, smoothing: float) -> tuple[float, float]:
    """Return the stationary mean and standard deviation of the estimator `ema_inverse`.

    Exact for geometric lengths: E[1/L] = p·ln(1/p)/q and E[1/L²] = p/q·Li2(q), q = 1-p, and the
    weights a(1-a)^i have the sum of squares a/(2-a).

    Raises:
        InputError: for arguments outside their range.
    """
    p, a = _check_law(termination_probability, smoothing)
    if p == 1.0:
        return 1.0, 0.0
    from scipy.special import spence

    mean = p * math.log(1.0 / p) / (1.0 - p)
    # scipy's spence(z) is Li2(1-z).
    second = p / (1.0 - p) * float(spence(p))
    return mean, math.sqrt(a / (2.0 - a) * max(second - mean**2, 0.0))


def ema_length_moments(termination_probability: float, smoothing: float) -> tuple[float, float]:
    """Return the stationary mean and standard deviation of the estimator `ema_length`.

    Exact for geometric lengths, by `_inverse_moments` with the weights a(1-a)^i.

    Raises:
        InputError: for arguments outside their range.
    """
    p, a = _check_law(termination_probability, smoothing)
    # Weights below 1e-9 of the first no longer move the product.
    terms = 1 if a == 1.0 else 1 + math.ceil(math.log(1e-9) / math.log1p(-a))
    return _inverse_moments(p, a * (1.0 - a) ** np.arange(terms, dtype=np.float64))


def window_moments(termination_probability: float, window: int) -> tuple[float, float]:
    """Return the stationary mean and standard deviation of p = W / tokens over W completions.

    They are those of two online estimators. ``window``: the W last lengths, complete. And
    ``completions_per_token``: all tokens generated while W requests ended, by whatever request.
    For geometric lengths every token is a trial with the same chance, so that in both the tokens
    are the trials until the W-th success, negative binomial. Lowest order: E = p·(1 + (1-p)/W),
    Var = p²·(1-p)/W; exact here by `_inverse_moments` with W weights of 1/W. At W = 2/a - 1 a
    moving average of the length has the same variance of its mean.

    Raises:
        InputError: for arguments outside their range.
    """
    if window < 1:
        raise InputError(f"window must be at least 1, got {window}")
    p, _ = _check_law(termination_probability, 1.0)
    return _inverse_moments(p, np.full(window, 1.0 / window))


def _inverse_moments(p: float, weights: FloatArray) -> tuple[float, float]:
    """Return mean and standard deviation of 1/M, M = sum of w_i·L_i, for weights of sum 1.

    By quadrature: with the Laplace transform of M, f(t) = product of phi(w_i·t),
    phi(s) = p / (exp(s) - q), E[1/M] = integral of f(t) dt and E[1/M²] = integral of t·f(t) dt
    over t > 0.
    """
    if p == 1.0:
        return 1.0, 0.0
    # f is positive and decays as exp(-t·M_min); in u = ln t the integrand is smooth on the line.
    u = np.linspace(math.log(p) - 40.0, math.log(800.0 / float(weights.max())), 6001)
    t = np.exp(u)
    log_f = np.zeros_like(t)
    values, counts = np.unique(weights, return_counts=True)
    for weight, count in zip(values, counts, strict=True):
        log_f += count * (np.log(p) - _log_expm1_plus(weight * t, p))
    f = np.exp(log_f)
    width = u[1] - u[0]
    mean = float((f * t).sum() * width)
    second = float((f * t**2).sum() * width)
    return mean, math.sqrt(max(second - mean**2, 0.0))


def _log_expm1_plus(s: FloatArray, p: float) -> FloatArray:
    """Return ln(exp(s) - 1 + p), without overflow or cancellation."""
    small = np.minimum(s, 1.0)
    with np.errstate(under="ignore"):
        large = s + np.log1p(-(1.0 - p) * np.exp(-np.maximum(s, 1.0)))
    return np.where(s < 1.0, np.log(np.expm1(small) + p), large)


def _check_law(termination_probability: float, smoothing: float) -> tuple[float, float]:
    if not 0.0 < termination_probability <= 1.0:
        raise InputError(
            f"termination_probability must be in (0, 1], got {termination_probability}"
        )
    return float(termination_probability), check_smoothing(smoothing)
