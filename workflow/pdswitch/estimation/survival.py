"""How the chance to end depends on age: hazard, survival, distance to the geometric law."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pdswitch.errors import InputError
from pdswitch.estimation.censored import estimate
from pdswitch.estimation.lengths import FloatArray, IntArray, check_censored


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
    length, cut = check_censored(lengths, censored)
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
    `pdswitch.estimation.censored`, up to the largest observed age.

    Args:
        lengths: tokens generated, to the end or to the cut.
        censored: True where the request was cut; None means nowhere.

    Raises:
        InputError: for no lengths, a length below 1, or if every request was cut.
    """
    length, cut = check_censored(lengths, censored)
    p = estimate(length, cut).termination_probability
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
    length, cut = check_censored(lengths, censored)
    ages, deaths = np.unique(length[~cut], return_counts=True)
    ordered = np.sort(length)
    # A request cut at age l was at risk at l: it made that trial.
    at_risk = length.size - np.searchsorted(ordered, ages, side="left")
    return ages, np.asarray(np.cumprod(1.0 - deaths / at_risk), dtype=np.float64)
