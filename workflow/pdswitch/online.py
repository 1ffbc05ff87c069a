"""Online estimators of the termination probability p, one observation a completion.

They run inside the scheduler, between two steps of the model: constant time and memory per
observation. Their stationary bias and variance are derived in `pdswitch.estimation`.
"""

from typing import Literal, Protocol

EstimatorName = Literal["ema_length", "ema_inverse"]


class OnlineEstimator(Protocol):
    """Estimates p from output lengths as they come."""

    @property
    def probability(self) -> float:
        """The current estimate of p, per token."""
        ...

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        ...


class EmaLength:
    """Exponential moving average of the length L; p = 1 / average."""

    def __init__(self, smoothing: float, initial_probability: float | None) -> None:
        self._smoothing = smoothing
        self._mean = None if initial_probability is None else 1.0 / initial_probability

    @property
    def probability(self) -> float:
        """The current estimate of p, per token."""
        if self._mean is None:
            raise ValueError("p is unknown before the first completion; give initial_probability")
        return 1.0 / self._mean

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        if self._mean is None:
            self._mean = float(output_tokens)
        else:
            self._mean += self._smoothing * (output_tokens - self._mean)


class EmaInverse:
    """Exponential moving average of 1/L, as the reference document writes it.

    Biased upward, because E[1/L] > 1/E[L]; kept for comparison.
    """

    def __init__(self, smoothing: float, initial_probability: float | None) -> None:
        self._smoothing = smoothing
        self._probability = initial_probability

    @property
    def probability(self) -> float:
        """The current estimate of p, per token."""
        if self._probability is None:
            raise ValueError("p is unknown before the first completion; give initial_probability")
        return self._probability

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        inverse = 1.0 / output_tokens
        if self._probability is None:
            self._probability = inverse
        else:
            self._probability += self._smoothing * (inverse - self._probability)


def make_estimator(
    name: EstimatorName, smoothing: float, initial_probability: float | None
) -> OnlineEstimator:
    """Return the estimator of that name; `smoothing` in (0, 1] weighs the newest observation."""
    if name == "ema_length":
        return EmaLength(smoothing, initial_probability)
    return EmaInverse(smoothing, initial_probability)
