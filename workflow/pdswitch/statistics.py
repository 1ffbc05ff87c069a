"""The verdict's statistics: which k is best, and what choosing k* costs.

Every k is measured once per block, so that log throughput = k effect + block effect + noise, a
randomised complete block design. What is wanted of the k effects is the distance of one to the
best, with the best unknown: multiple comparisons with the best (Hsu, Annals of Statistics 12,
1984). The upper ends hold for all k at once, hence also for a k̂ picked after the fact, and so does
the set of those that may be the best. A lower end holds for a k named before the measurements, as
k* is: in a flat sweep some k looks bad by chance (Dunnett's one-sided bound with k as control).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
DRAWS = 200_000


@dataclass(frozen=True)
class Comparison:
    """All measured thresholds against the best.

    Attributes:
        thresholds: k, ascending, length K.
        mean: geometric mean throughput over the blocks, length K.
        k_hat: the k with the highest mean.
        regret: 1 − X(k)/X(best other or own), at least 0, length K; the luckiest k is taken for
            the best, so that it is too large in the mean where the curve is flat.
        regret_held_out: the same against the best of the other blocks, in the block left out, in
            the mean over blocks; may be negative. It pays for no luck; None with one block.
        low: lower end of the regret's 95 % interval, for one k named before; None with one block.
        high: upper end, for all k at once.
        indifferent: all k that cannot be told from the best; None with one block.
        noise: standard deviation of one log throughput about its k and block effects.
        n_blocks: complete blocks.
    """

    thresholds: list[int]
    mean: Floats
    k_hat: int
    regret: Floats
    regret_held_out: Floats | None
    low: Floats | None
    high: Floats | None
    indifferent: list[int] | None
    noise: float | None
    n_blocks: int


def compare_with_best(thresholds: list[int], throughput: Floats, seed: int = 0) -> Comparison:
    """Compare every k with the best.

    Args:
        thresholds: k, ascending, length K.
        throughput: shape (blocks, K); a block that lacks a k (NaN) is left out.
        seed: of the Monte Carlo critical value.

    Raises:
        ValueError: if no block is complete.
    """
    complete = ~np.isnan(throughput).any(axis=1)
    if not complete.any():
        raise ValueError(
            "no block has a valid run of every k, so they cannot be compared; see the rejected runs"
        )
    logs = np.log(throughput[complete])
    blocks, count = logs.shape
    mean = logs.mean(axis=0)
    best = int(mean.argmax())
    distance = _distance_to_best_other(mean)
    regret = -np.expm1(-np.maximum(distance, 0))
    common = {
        "thresholds": list(thresholds),
        "mean": np.exp(mean),
        "k_hat": thresholds[best],
        "regret": regret,
        "n_blocks": blocks,
    }
    if blocks < 2 or count < 2:
        return Comparison(
            **common, regret_held_out=None, low=None, high=None, indifferent=None, noise=None
        )
    residual = logs - mean - logs.mean(axis=1, keepdims=True) + mean.mean()
    freedom = (blocks - 1) * (count - 1)
    noise = float(np.sqrt((residual**2).sum() / freedom))
    width = best_critical_value(count, freedom, seed) * noise * np.sqrt(2 / blocks)
    low = -np.expm1(-np.maximum(distance - width, 0))
    high = -np.expm1(-np.maximum(distance + width, 0))
    return Comparison(
        **common,
        regret_held_out=_held_out(logs),
        low=low,
        high=high,
        indifferent=[k for k, d in zip(thresholds, distance, strict=True) if d <= width],
        noise=noise,
    )


def _distance_to_best_other(mean: Floats) -> Floats:
    """Max over the others minus own: negative for the best alone."""
    if mean.size == 1:
        return np.zeros(1)
    order = np.argsort(mean)
    distance = mean[order[-1]] - mean
    distance[order[-1]] = mean[order[-2]] - mean[order[-1]]
    return np.asarray(distance)


def _held_out(logs: Floats) -> Floats:
    """Distance of every k to the best of the other blocks, as regret."""
    chosen = (logs.sum(axis=0) - logs).argmax(axis=1)
    distance = logs[np.arange(len(logs)), chosen, None] - logs
    return np.asarray(-np.expm1(-distance.mean(axis=0)))


def best_critical_value(count: int, freedom: int, seed: int = 0) -> float:
    """Return Dunnett's one-sided 95 % critical value for `count` means, by Monte Carlo.

    The quantile of max_j (Z_j − Z_0)/(√2·S), Z standard normal, S² = χ²/freedom.
    """
    random = np.random.default_rng(seed)
    control = random.standard_normal(DRAWS)
    largest = np.full(DRAWS, -np.inf)
    for _ in range(count - 1):
        np.maximum(largest, random.standard_normal(DRAWS), out=largest)
    spread = np.sqrt(random.chisquare(freedom, DRAWS) / freedom)
    return float(np.quantile((largest - control) / (np.sqrt(2) * spread), CONFIDENCE))


def mean_absolute_percentage_error(predicted: Floats, measured: Floats) -> float:
    """Return the mean of |predicted/measured − 1|, as a fraction."""
    return float(np.abs(np.asarray(predicted) / np.asarray(measured) - 1).mean())
