"""The termination probability p from output lengths, and whether the geometric law holds.

Lengths are counted in tokens, the ending one included; a request that was cut at the token limit is
censored: it made as many trials as it has tokens, and none of them ended it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """An estimate of the termination probability.

    Attributes:
        termination_probability: p, per token.
        standard_error: of p.
        method: name of the estimator.
        n: requests it rests on.
    """

    termination_probability: float
    standard_error: float
    method: str
    n: int


def estimate_mean(lengths: ArrayLike) -> Estimate:
    """Return p = 1 / mean length, every length taken as complete.

    Bias p(1-p)/n to first order for geometric lengths (1/x is convex). Standard error by the delta
    method from the sample's own spread, s / (mean²·sqrt(n)); for one request, where there is no
    spread, that of the geometric law, p·sqrt(1-p).

    Args:
        lengths: output lengths, tokens.

    Raises:
        InputError: for no lengths, or a length below 1.
    """
    length = _check_lengths(lengths)
    p = 1.0 / float(length.mean())
    if length.size > 1:
        error = p**2 * float(length.std(ddof=1)) / math.sqrt(length.size)
    else:
        error = p * math.sqrt(1.0 - p)
    return Estimate(p, error, "mean", length.size)


def estimate_censored(lengths: ArrayLike, censored: ArrayLike) -> Estimate:
    """Return p = completions / tokens generated, the maximum-likelihood estimate under censoring.

    Each token is one trial, so that the estimate stays right however many requests are cut.
    Relative bias for d completions, cut at M tokens, q = 1-p and F = 1-q^M:
    q/d·(1 - M·p·q^(M-1)/F), which is (1-p)/d without a cut and vanishes where nearly all are cut
    (the number of trials is then fixed). Standard error p·sqrt((1-p)/d).

    Args:
        lengths: tokens generated, to the end or to the cut.
        censored: True where the request was cut at the token limit.

    Raises:
        InputError: for no lengths, a length below 1, or if every request was cut.
    """
    length, cut = _check_censored(lengths, censored)
    completions = int((~cut).sum())
    if completions == 0:
        raise InputError(
            f"all {length.size} requests were cut at the token limit, so that p is unknown; "
            "raise max_output_tokens"
        )
    p = completions / float(length.sum())
    return Estimate(p, p * math.sqrt((1.0 - p) / completions), "censored", length.size)


def estimate_ema_inverse(lengths: ArrayLike, smoothing: float) -> Estimate:
    """Return the moving average p <- a/L + (1-a)·p, as the reference document writes it.

    It starts at 1/L of the first request. Stationary mean E[1/L] = p·ln(1/p)/(1-p) for geometric
    lengths, not p: biased upward by a factor of about ln(1/p) (4.9 at p = 1/128), at any a.
    Stationary variance a/(2-a)·Var(1/L), E[1/L²] = p/(1-p)·Li2(1-p). See `ema_inverse_moments`.
    The standard error is that of the weighted mean of 1/L; it does not contain the bias.

    Args:
        lengths: output lengths in the order of completion, tokens.
        smoothing: a, weight of the newest observation, in (0, 1].

    Raises:
        InputError: for no lengths, a length below 1, or a smoothing outside its range.
    """
    length = _check_lengths(lengths)
    p, error = _weighted(1.0 / length, smoothing)
    return Estimate(p, error, "ema_inverse", length.size)


def estimate_ema_length(lengths: ArrayLike, smoothing: float) -> Estimate:
    """Return 1/M for the moving average of the length M <- a·L + (1-a)·M.

    It starts at the first length. Stationary: E[M] = 1/p, Var M = v/p² with
    v = a/(2-a)·(1-p), hence E[1/M] = p·(1+v) and Var(1/M) = p²·v to lowest order: the bias
    vanishes with a, and is 19 % at a = 0.3 and small p. Exact values: `ema_length_moments`.
    Standard error by the delta method.

    Args:
        lengths: output lengths in the order of completion, tokens.
        smoothing: a, weight of the newest observation, in (0, 1].

    Raises:
        InputError: for no lengths, a length below 1, or a smoothing outside its range.
    """
    length = _check_lengths(lengths)
    mean, error = _weighted(length.astype(float), smoothing)
    return Estimate(1.0 / mean, error / mean**2, "ema_length", length.size)


def ema_inverse_moments(termination_probability: float, smoothing: float) -> tuple[float, float]:
    """Return the stationary mean and standard deviation of `estimate_ema_inverse`.

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
    """Return the stationary mean and standard deviation of `estimate_ema_length`.

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


@dataclass(frozen=True)
class Hazard:
    """Chance per token of ending, by age.

    Attributes:
        age: middle of each bin, tokens.
        hazard: endings per token generated at these ages.
        low: lower end of the interval.
        high: upper end.
    """

    age: FloatArray
    hazard: FloatArray
    low: FloatArray
    high: FloatArray


def hazard(
    lengths: ArrayLike,
    censored: ArrayLike | None = None,
    bins: int = 12,
    confidence: float = 0.95,
) -> Hazard:
    """Return the hazard rate by age with Wilson intervals; flat for the geometric law.

    The bins hold about equally many endings each. In a bin the tokens generated at its ages are
    trials, the requests that end there successes.

    Args:
        lengths: tokens generated, to the end or to the cut.
        censored: True where the request was cut; None means nowhere.
        bins: most bins.
        confidence: of each interval.

    Raises:
        InputError: for no lengths, a length below 1, or arguments outside their range.
    """
    length, cut = _check_censored(lengths, censored)
    if bins < 1 or not 0.0 < confidence < 1.0:
        raise InputError(
            f"bins must be at least 1 and confidence in (0, 1), got {bins}, {confidence}"
        )
    ended = np.sort(length[~cut])
    # Every bin but the last ends where its share of the endings is reached.
    shares = np.arange(1, bins) * ended.size // bins
    quantiles = ended[shares[shares > 0] - 1]
    # A bin covers the ages above its left edge up to its right edge.
    edges = np.unique(np.concatenate(([0], quantiles, [length.max()])).astype(np.int64))
    deaths = np.diff(np.searchsorted(ended, edges, side="right"))
    trials = np.diff([np.minimum(length, edge).sum() for edge in edges])
    low, high = wilson_interval(deaths, trials, confidence)
    return Hazard((edges[:-1] + 1 + edges[1:]) / 2.0, deaths / trials, low, high)


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return Wilson's interval for a proportion; it stays in [0, 1] and holds at 0 successes."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    n = np.asarray(trials, dtype=float)
    rate = np.asarray(successes, dtype=float) / n
    centre = (rate + z**2 / (2.0 * n)) / (1.0 + z**2 / n)
    half = z / (1.0 + z**2 / n) * np.sqrt(rate * (1.0 - rate) / n + z**2 / (4.0 * n**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def geometric_ks_distance(lengths: ArrayLike, censored: ArrayLike | None = None) -> float:
    """Return the Kolmogorov-Smirnov distance of the lengths to the geometric law fitted to them.

    The largest difference between the Kaplan-Meier distribution function and 1-(1-p)^l, p from
    `estimate_censored`, up to the largest observed age.

    Args:
        lengths: tokens generated, to the end or to the cut.
        censored: True where the request was cut; None means nowhere.

    Raises:
        InputError: for no lengths, a length below 1, or if every request was cut.
    """
    length, cut = _check_censored(lengths, censored)
    p = estimate_censored(length, cut).termination_probability
    ages, survival = kaplan_meier(length, cut)
    with np.errstate(divide="ignore"):
        log_q = np.log1p(-p)
    after = np.abs((1.0 - survival) + np.expm1(ages * log_q))
    # Just before the next jump the empirical function is lowest against the fitted one.
    until = np.append(ages[1:], length.max() + 1) - 1
    first = abs(float(np.expm1((ages[0] - 1) * log_q))) if ages[0] > 1 else 0.0
    before = np.abs((1.0 - survival) + np.expm1(np.maximum(until, ages) * log_q))
    return float(max(after.max(), before.max(), first))


def kaplan_meier(
    lengths: ArrayLike, censored: ArrayLike | None = None
) -> tuple[IntArray, FloatArray]:
    """Return the ages at which requests ended, ascending, and the chance to survive each.

    Raises:
        InputError: for no lengths, or a length below 1.
    """
    length, cut = _check_censored(lengths, censored)
    ages, deaths = np.unique(length[~cut], return_counts=True)
    ordered = np.sort(length)
    # A request cut at age l was at risk at l: it made that trial.
    at_risk = length.size - np.searchsorted(ordered, ages, side="left")
    return ages, np.asarray(np.cumprod(1.0 - deaths / at_risk), dtype=np.float64)


def _weighted(values: FloatArray, smoothing: float) -> tuple[float, float]:
    """Return the moving average of the values and its standard error, for independent values."""
    _check_smoothing(smoothing)
    n = values.size
    age = np.arange(n - 1, -1, -1.0)
    weights = smoothing * (1.0 - smoothing) ** age
    weights[0] = (1.0 - smoothing) ** (n - 1)
    # One value shows no spread: lengths vary about as much as they are long.
    spread = float(values.std(ddof=1)) if n > 1 else float(values[0])
    return float(weights @ values), spread * math.sqrt(float(weights @ weights))


def _log_expm1_plus(s: FloatArray, p: float) -> FloatArray:
    """Return ln(exp(s) - 1 + p), without overflow or cancellation."""
    small = np.minimum(s, 1.0)
    with np.errstate(under="ignore"):
        large = s + np.log1p(-(1.0 - p) * np.exp(-np.maximum(s, 1.0)))
    return np.where(s < 1.0, np.log(np.expm1(small) + p), large)


def _check_lengths(lengths: ArrayLike) -> IntArray:
    values = np.asarray(lengths)
    if values.ndim != 1 or values.size == 0:
        raise InputError("lengths must be a list of at least one output length, got none")
    if not (
        np.isfinite(values).all() and (values >= 1).all() and (values == np.rint(values)).all()
    ):
        raise InputError(
            "every length must be a whole number of at least 1 token; "
            "leave out requests that generated nothing"
        )
    return values.astype(np.int64)


def _check_censored(lengths: ArrayLike, censored: ArrayLike | None) -> tuple[IntArray, BoolArray]:
    length = _check_lengths(lengths)
    if censored is None:
        return length, np.zeros(length.size, dtype=np.bool_)
    cut = np.asarray(censored, dtype=np.bool_)
    if cut.shape != length.shape:
        raise InputError(
            f"censored must have one value per length, got {cut.size} for {length.size} lengths"
        )
    return length, cut


def _check_smoothing(smoothing: float) -> float:
    if not 0.0 < smoothing <= 1.0:
        raise InputError(f"smoothing must be in (0, 1], got {smoothing}")
    return float(smoothing)


def _check_law(termination_probability: float, smoothing: float) -> tuple[float, float]:
    if not 0.0 < termination_probability <= 1.0:
        raise InputError(
            f"termination_probability must be in (0, 1], got {termination_probability}"
        )
    return float(termination_probability), _check_smoothing(smoothing)
