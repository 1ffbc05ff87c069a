"""How sure k* and the predicted curve are, given the uncertainty of the fitted parameters and p.

Parameters are drawn: p log-normally (it is positive, and its relative error is what is known), the
step times jointly normal and cut at 0, where a physical time ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError
from pdswitch.theory.asymptote import asymptotic_theta
from pdswitch.theory.closed_form import harmonic_gain, optimal_threshold
from pdswitch.theory.curves import FloatArray
from pdswitch.theory.overshoot import corrected_throughput
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import check_not_negative, check_probability, check_slots

IntArray = NDArray[np.int64]

# Observations drawn at once.
_BLOCK = 1_000_000
# Termination probabilities at which the corrected curve is computed for a band.
_NODES = 17


@dataclass(frozen=True)
class ThresholdDistribution:
    """Draws of k*.

    Attributes:
        samples: k* of each draw.
    """

    samples: IntArray

    def quantile(self, probability: ArrayLike) -> IntArray:
        """Return the k* below which these parts of the draws lie (a k* that was drawn)."""
        at = np.asarray(probability, dtype=float)
        found = np.quantile(self.samples.astype(float), at, method="inverted_cdf")
        return np.asarray(found, dtype=np.int64)

    def interval(self, confidence: float = 0.95) -> tuple[int, int]:
        """Return the central interval of this confidence."""
        tail = (1.0 - confidence) / 2.0
        low, high = self.quantile([tail, 1.0 - tail])
        return int(low), int(high)


def threshold_distribution(
    n_slots: int,
    termination_probability: float,
    p_standard_error: float,
    alpha_p: float,
    alpha_d: float,
    covariance: ArrayLike = ((0.0, 0.0), (0.0, 0.0)),
    draws: int = 10_000,
    seed: int = 0,
) -> ThresholdDistribution:
    """Return the distribution of the closed-form k*, form ``expected``, under uncertain parameters.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        p_standard_error: its standard error.
        alpha_p: fixed time of a prefill step, seconds.
        alpha_d: fixed time of a decode step, seconds.
        covariance: 2 by 2, of (alpha_p, alpha_d), seconds squared.
        draws: number of draws.
        seed: of the random numbers.

    Raises:
        InputError: for arguments outside their range.
    """
    rng = np.random.default_rng(seed)
    p = _draw_probability(rng, termination_probability, p_standard_error, draws)
    drawn_p, drawn_d = _draw_times(rng, (alpha_p, alpha_d), covariance, draws).T
    return ThresholdDistribution(thresholds_of(n_slots, p, drawn_p, drawn_d))


def single_exit_distribution(
    n_slots: int,
    termination_probability: float,
    p_standard_error: float,
    alpha_p: float,
    alpha_d: float,
    beta_d: float,
    covariance: ArrayLike,
    draws: int = 2_000,
    seed: int = 0,
) -> ThresholdDistribution:
    """Return the distribution of the published, ``single_exit`` k* under uncertain parameters.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        p_standard_error: its standard error.
        alpha_p: fixed time of a prefill step, seconds.
        alpha_d: fixed time of a decode step, seconds.
        beta_d: decode time per active request, seconds.
        covariance: 3 by 3, of (alpha_p, alpha_d, beta_d), seconds squared.
        draws: number of draws; each is a search of its own.
        seed: of the random numbers.

    Raises:
        InputError: for arguments outside their range.
    """
    rng = np.random.default_rng(seed)
    p = _draw_probability(rng, termination_probability, p_standard_error, draws)
    times = _draw_times(rng, (alpha_p, alpha_d, beta_d), covariance, draws)
    found = [
        optimal_threshold(n_slots, probability, prefill, step, request, "single_exit")
        for probability, (prefill, step, request) in zip(p, times, strict=True)
    ]
    return ThresholdDistribution(np.array(found))


def bootstrap_thresholds(
    n_slots: int,
    lengths: ArrayLike,
    prefill_tokens: ArrayLike,
    prefill_seconds: ArrayLike,
    decode_requests: ArrayLike,
    decode_seconds: ArrayLike,
    draws: int = 10_000,
    seed: int = 0,
) -> ThresholdDistribution:
    """Return the distribution of k* when the measurements themselves are drawn again.

    Each draw resamples the output lengths (p = 1 / mean), the prefill steps and the decode steps
    with replacement, and fits both straight lines by least squares anew. No law is assumed for the
    errors. A draw whose fit has a negative intercept counts it as 0.

    Args:
        n_slots: N, slots.
        lengths: output lengths, tokens.
        prefill_tokens: prompt tokens of the measured prefill steps.
        prefill_seconds: their times, seconds.
        decode_requests: active requests of the measured decode steps.
        decode_seconds: their times, seconds.
        draws: number of draws.
        seed: of the random numbers.

    Raises:
        InputError: if a sample is too small for its fit.
    """
    rng = np.random.default_rng(seed)
    length = np.asarray(lengths, dtype=float)
    if length.size == 0 or not (length >= 1.0).all():
        raise InputError("lengths must hold at least one output, each of 1 token or more")
    p = 1.0 / np.concatenate([length[i].mean(axis=1) for i in _resample(rng, length.size, draws)])
    alpha_p = _intercepts(rng, prefill_tokens, prefill_seconds, draws, "prefill")
    alpha_d = _intercepts(rng, decode_requests, decode_seconds, draws, "decode")
    return ThresholdDistribution(thresholds_of(n_slots, p, alpha_p, alpha_d))


def thresholds_of(
    n_slots: int, p: FloatArray, alpha_p: FloatArray, alpha_d: FloatArray
) -> IntArray:
    """Return the closed-form k* of many parameter sets with one N, vectorised."""
    gain = harmonic_gain(n_slots)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without a fixed prefill time k* is 1, whatever the rest.
        ratio = np.where(alpha_p > 0.0, p * alpha_p / alpha_d, 0.0)
    return np.searchsorted(gain, ratio) + 1


def threshold_standard_error(
    n_slots: int,
    termination_probability: float,
    p_standard_error: float,
    alpha_p: float,
    alpha_d: float,
    covariance: ArrayLike = ((0.0, 0.0), (0.0, 0.0)),
) -> float:
    """Return the standard error of k* by the delta method on k* = theta(ratio)·N.

    d theta / d ratio = (1-theta)²/theta, and the relative variance of ratio = p·alpha_p/alpha_d is
    var p/p² + var alpha_p/alpha_p² + var alpha_d/alpha_d² - 2 cov/(alpha_p·alpha_d).

    Returns:
        Slots; infinite where alpha_p or alpha_d is 0, which has no relative error.

    Raises:
        InputError: for arguments outside their range.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    check_not_negative("p_standard_error", p_standard_error)
    if check_not_negative("alpha_p", alpha_p) == 0 or check_not_negative("alpha_d", alpha_d) == 0:
        return float("inf")
    cov = np.asarray(covariance, dtype=float)
    relative = (
        (p_standard_error / p) ** 2
        + cov[0, 0] / alpha_p**2
        + cov[1, 1] / alpha_d**2
        - 2.0 * cov[0, 1] / (alpha_p * alpha_d)
    )
    ratio = p * alpha_p / alpha_d
    theta = float(asymptotic_theta(ratio))
    return float(n_slots * (1.0 - theta) ** 2 / theta * ratio * np.sqrt(max(relative, 0.0)))


def throughput_band(
    n_slots: int,
    termination_probability: float,
    p_standard_error: float,
    step_times: StepTimes,
    mean_prompt_tokens: float,
    covariance: ArrayLike | None = None,
    confidence: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Return the band of `corrected_throughput` for k = 1..N under uncertain parameters.

    The time per completion is linear in the four step times; its coefficients depend on p alone,
    and are taken at a few p and interpolated to the one of each draw.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        p_standard_error: its standard error.
        step_times: the linear step times.
        mean_prompt_tokens: mean prompt length, tokens.
        covariance: 4 by 4, of (alpha_p, beta_p, alpha_d, beta_d); None means certain.
        confidence: of the band, pointwise.
        draws: number of draws.
        seed: of the random numbers.

    Returns:
        Lower and upper bounds, requests per second, arrays of length N.

    Raises:
        InputError: for arguments outside their range.
    """
    rng = np.random.default_rng(seed)
    check_slots(n_slots)
    check_not_negative("mean_prompt_tokens", mean_prompt_tokens)
    p = _draw_probability(rng, termination_probability, p_standard_error, draws)
    mean = (step_times.alpha_p, step_times.beta_p, step_times.alpha_d, step_times.beta_d)
    spread = np.zeros((4, 4)) if covariance is None else covariance
    alpha_p, beta_p, alpha_d, beta_d = _draw_times(rng, mean, spread, draws).T
    fixed, steps, requests = _seconds_per_completion(n_slots, p)
    seconds = alpha_p[:, None] * fixed + (beta_p * mean_prompt_tokens)[:, None]
    seconds += (alpha_d / p)[:, None] * steps + (beta_d / p)[:, None] * requests
    with np.errstate(divide="ignore"):
        drawn = 1.0 / seconds
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    return low, high


def _seconds_per_completion(
    n_slots: int, p: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return what alpha_p, alpha_d/p and beta_d/p are multiplied with, draws by N."""
    certain = p.max() <= p.min() * (1.0 + 1e-9)
    nodes = p[:1] if certain else np.geomspace(p.min(), p.max(), _NODES)

    def per_completion(node: float, *times: float) -> FloatArray:
        return 1.0 / corrected_throughput(n_slots, node, StepTimes(*times), 0.0)

    fixed = np.array([per_completion(node, 1.0, 0.0, 0.0, 0.0) for node in nodes])
    steps = np.array([per_completion(node, 1.0, 0.0, 1.0, 0.0) for node in nodes]) - fixed
    requests = np.array([per_completion(node, 1.0, 0.0, 0.0, 1.0) for node in nodes]) - fixed
    # Times p they hardly depend on p, so that straight lines between the nodes will do.
    scaled = (fixed, steps * nodes[:, None], requests * nodes[:, None])
    if certain:
        return scaled
    right = np.clip(np.searchsorted(nodes, p), 1, nodes.size - 1)
    part = (np.log(p / nodes[right - 1]) / np.log(nodes[right] / nodes[right - 1]))[:, None]
    between = [(1.0 - part) * at[right - 1] + part * at[right] for at in scaled]
    return between[0], between[1], between[2]


def _draw_probability(
    rng: np.random.Generator, p: float, standard_error: float, draws: int
) -> FloatArray:
    check_probability(p)
    check_not_negative("p_standard_error", standard_error)
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}")
    return np.minimum(p * np.exp(standard_error / p * rng.standard_normal(draws)), 1.0)


def _draw_times(
    rng: np.random.Generator, mean: Sequence[float], covariance: ArrayLike, draws: int
) -> FloatArray:
    for value in mean:
        check_not_negative("step time", value)
    cov = np.asarray(covariance, dtype=float)
    if cov.shape != (len(mean), len(mean)) or not np.isfinite(cov).all():
        raise InputError(
            f"covariance must be a finite {len(mean)} by {len(mean)} matrix, got shape {cov.shape}"
        )
    values, vectors = np.linalg.eigh((cov + cov.T) / 2.0)
    if values.min() < -1e-9 * max(values.max(), 0.0):
        raise InputError("covariance must have no negative eigenvalue; check the signs of the fit")
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = np.asarray(mean) + rng.standard_normal((draws, len(mean))) @ root.T
    return np.maximum(drawn, 0.0)


def _resample(rng: np.random.Generator, size: int, draws: int) -> Iterator[IntArray]:
    """Yield the observations of each draw, as rows, a block of draws at a time to save memory."""
    block = max(_BLOCK // size, 1)
    for begin in range(0, draws, block):
        yield rng.integers(size, size=(min(block, draws - begin), size))


def _intercepts(
    rng: np.random.Generator, x: ArrayLike, y: ArrayLike, draws: int, what: str
) -> FloatArray:
    at, seconds = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if at.ndim != 1 or at.shape != seconds.shape or np.unique(at).size < 2:
        raise InputError(
            f"the {what} fit needs steps of at least 2 different sizes, each with its time"
        )
    if not (np.isfinite(at).all() and np.isfinite(seconds).all()):
        raise InputError(f"the {what} steps must have finite sizes and times")
    # Centred: the squares of thousands of tokens would cancel.
    centre = at.mean()
    found = []
    for chosen in _resample(rng, at.size, draws):
        x_drawn, y_drawn = at[chosen] - centre, seconds[chosen]
        mean_x, mean_y = x_drawn.mean(axis=1), y_drawn.mean(axis=1)
        variance = (x_drawn**2).mean(axis=1) - mean_x**2
        covariance = (x_drawn * y_drawn).mean(axis=1) - mean_x * mean_y
        # A draw of one size only has no slope.
        known = variance > 1e-12 * at.var()
        slope = np.divide(covariance, variance, out=np.zeros_like(mean_x), where=known)
        found.append(mean_y - slope * (mean_x + centre))
    return np.maximum(np.concatenate(found), 0.0)
