"""The verdict's statistics: which k is best, and what choosing k* costs.

Every k is measured once per block, so that log throughput = k effect + block effect + noise, a
randomised complete block design. What is wanted of the k effects is the distance of one to the
best, with the best unknown: multiple comparisons with the best (Hsu, Annals of Statistics 12,
1984). The upper ends hold for all k at once, hence also for a k̂ picked after the fact, and so does
the set of those that may be the best. A lower end holds for a k named before the measurements, as
k* is: in a flat sweep some k looks bad by chance (Dunnett's one-sided bound with k as control).

Noise differs between k: where the host sets the time of the steps, as at small k on a GPU, runs
repeat ten times worse. Pooled over all k, it would drown what the good ones tell apart. So there
are two looks, each at 97.5 %: the first, at all k, leaves the contenders; the second is at those
alone, with their own noise. With 95 % both are right, and so is what they agree on. (Screening,
then comparison, on a shared error: Nelson, Swann, Goldsman and Song, Operations Research 49, 2001.)
What is left of the assumption: contenders repeat equally well. One of them that is ten times
noisier than the rest is missed in up to 18 of 100 sweeps instead of 5; two or three repeats cannot
tell, the figure's single repeats show it.

The throughput of one k by itself, as against a prediction, is another matter: `mean_interval`.
There the blocks count as draws too, because the next one is another again.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pdswitch.errors import InputError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
LOOK = 1 - (1 - CONFIDENCE) / 2  # of each of two looks
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
        n_blocks: complete blocks.
        regret_held_out: the same against the best of the other blocks, in the block left out, in
            the mean over blocks; may be negative. It pays for no luck; None with one block.
        low: lower end of the regret's 95 % interval, for one k named before; None with one block.
        high: upper end, for all k at once.
        contenders: the k that the first look leaves; None with one block.
        indifferent: those of them that cannot be told from the best; None with one block.
        noise: standard deviation of one log throughput of a contender about its k and block
            effects; of all k where there is one contender; None with one block.
    """

    thresholds: list[int]
    mean: Floats
    k_hat: int
    regret: Floats
    n_blocks: int
    regret_held_out: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None
    contenders: list[int] | None = None
    indifferent: list[int] | None = None
    noise: float | None = None


def compare_with_best(thresholds: list[int], throughput: Floats, seed: int = 0) -> Comparison:
    """Compare every k with the best.

    Args:
        thresholds: k, ascending, length K.
        throughput: shape (blocks, K); a block that lacks a k (NaN) is left out.
        seed: of the Monte Carlo critical value.

    Raises:
        InputError: if no block is complete.
    """
    complete = ~np.isnan(throughput).any(axis=1)
    if not complete.any():
        raise InputError(
            "no block has a valid run of every k, so they cannot be compared; see the rejected runs"
        )
    logs = np.log(throughput[complete])
    blocks, count = logs.shape
    mean = logs.mean(axis=0)
    distance = _distance_to_best_other(mean)
    common = {
        "thresholds": list(thresholds),
        "mean": np.exp(mean),
        "k_hat": thresholds[int(mean.argmax())],
        "regret": _as_regret(distance),
        "n_blocks": blocks,
    }
    if blocks < 2 or count < 2:
        return Comparison(**common)
    width, noise = _look(logs, seed)
    contenders = np.flatnonzero(distance <= width)
    widths = np.full(count, width)
    if contenders.size > 1:
        width, noise = _look(logs[:, contenders], seed)
        # Few contenders have few degrees of freedom: the first look may know better.
        widths[contenders] = np.minimum(widths[contenders], width)
    named = np.array(thresholds)
    return Comparison(
        **common,
        regret_held_out=_held_out(logs),
        low=_as_regret(distance - widths),
        high=_as_regret(distance + widths),
        contenders=named[contenders].tolist(),
        indifferent=named[distance <= widths].tolist(),
        noise=noise,
    )


def mean_interval(logs: Floats) -> float:
    """Return the half width of a 95 % interval for the mean log throughput of any one k.

    Log throughput = k effect + block effect + noise, both drawn anew in every block. The variance
    of a mean over n blocks is (σ_b² + σ²)/n. Of it the mean square between blocks, B, estimates
    K·σ_b² + σ², and the mean square of the residuals, R, estimates σ², so that

        (B/K + (1 − 1/K)·R) / n

    estimates the whole. Runs of one block err together: B has n − 1 degrees of freedom however many
    k there are, and R has (n − 1)(K − 1). Each part is widened by its own quantile of Student's t,

        w² = (t²[n − 1]·B/K + t²[(n − 1)(K − 1)]·(1 − 1/K)·R) / n,

    which covers at least 95 % whatever the ratio of σ_b to σ (Banerjee, Sankhya 22, 1960). With one
    k it is Student's interval of that k alone.

    Args:
        logs: shape (n blocks, K); k that repeat equally well.

    Returns:
        w, the same for every k; NaN with one block.
    """
    blocks, count = logs.shape
    if blocks < 2:
        return float("nan")
    of_blocks = logs.mean(axis=1)
    between = count * float(of_blocks.var(ddof=1))
    squared = stats.t.ppf(0.5 + CONFIDENCE / 2, blocks - 1) ** 2 * between / count
    if count > 1:
        freedom = (blocks - 1) * (count - 1)
        noise = float((_residuals(logs) ** 2).sum()) / freedom
        quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)
        squared += quantile**2 * (1 - 1 / count) * noise
    return float(np.sqrt(squared / blocks))


def _residuals(logs: Floats) -> Floats:
    """What neither k nor block explains."""
    return logs - logs.mean(axis=0) - logs.mean(axis=1, keepdims=True) + logs.mean()


def _look(logs: Floats, seed: int) -> tuple[float, float]:
    """Return how far apart two means may be by chance, and the noise of one log throughput."""
    blocks, count = logs.shape
    freedom = (blocks - 1) * (count - 1)
    noise = float(np.sqrt((_residuals(logs) ** 2).sum() / freedom))
    return best_critical_value(count, freedom, seed) * noise * float(np.sqrt(2 / blocks)), noise


def _as_regret(distance: Floats) -> Floats:
    return np.asarray(-np.expm1(-np.maximum(distance, 0)))


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


@cache
def best_critical_value(count: int, freedom: int, seed: int = 0) -> float:
    """Return Dunnett's one-sided critical value of one look at `count` means, by Monte Carlo.

    The `LOOK` quantile of max_j (Z_j − Z_0)/(√2·S), Z standard normal, S² = χ²/freedom.
    """
    random = np.random.default_rng(seed)
    control = random.standard_normal(DRAWS)
    largest = np.full(DRAWS, -np.inf)
    for _ in range(count - 1):
        np.maximum(largest, random.standard_normal(DRAWS), out=largest)
    spread = np.sqrt(random.chisquare(freedom, DRAWS) / freedom)
    return float(np.quantile((largest - control) / (np.sqrt(2) * spread), LOOK))


def mean_absolute_percentage_error(predicted: Floats, measured: Floats) -> float:
    """Return the mean of |predicted/measured − 1|, as a fraction."""
    return float(np.abs(np.asarray(predicted) / np.asarray(measured) - 1).mean())
