"""Step-time curves: T_p(tokens) of a prefill step, t(j, context) of a decode step, in seconds.

Every prediction takes any callable of these signatures. The classes here are the fitted and
tabulated ones: immutable and comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError
from pdswitch.theory.validation import check_not_negative, check_positive

FloatArray = NDArray[np.float64]


class PrefillCurve(Protocol):
    """Seconds of a prefill step that processes so many prompt tokens."""

    def __call__(self, tokens: ArrayLike, /) -> FloatArray:
        """Return seconds, in the shape of `tokens`."""
        ...


class DecodeCurve(Protocol):
    """Seconds of a decode step of j requests that together hold so many KV tokens."""

    def __call__(self, requests: ArrayLike, context_tokens: ArrayLike = 0.0, /) -> FloatArray:
        """Return seconds, in the broadcast shape of the arguments."""
        ...


class StepCurves(NamedTuple):
    """A prefill curve and a decode curve."""

    prefill: PrefillCurve
    decode: DecodeCurve


@dataclass(frozen=True)
class LinearPrefill:
    """alpha_p + beta_p · tokens.

    Attributes:
        alpha_p: seconds.
        beta_p: seconds per prompt token.

    Raises:
        InputError: if a parameter is negative or not finite.
    """

    alpha_p: float
    beta_p: float

    def __post_init__(self) -> None:
        check_not_negative("alpha_p", self.alpha_p)
        check_not_negative("beta_p", self.beta_p)

    def __call__(self, tokens: ArrayLike) -> FloatArray:
        """Return seconds, in the shape of `tokens`."""
        return self.alpha_p + self.beta_p * np.asarray(tokens, dtype=float)

    def knots(self) -> tuple[FloatArray, FloatArray]:
        """Return tokens and seconds of the corners; the last slope goes on for ever."""
        return np.array([0.0, 1.0]), np.array([self.alpha_p, self.alpha_p + self.beta_p])


@dataclass(frozen=True)
class HingePrefill:
    """max(floor_s, offset_s + rate_s_per_token · tokens): flat, then a line.

    Attributes:
        floor_s: seconds that launch and the reading of the weights take at least.
        offset_s: seconds, may be negative.
        rate_s_per_token: seconds per prompt token beyond the hinge.

    Raises:
        InputError: if floor or rate is negative, or a parameter is not finite.
    """

    floor_s: float
    offset_s: float
    rate_s_per_token: float

    def __post_init__(self) -> None:
        check_not_negative("floor_s", self.floor_s)
        check_not_negative("rate_s_per_token", self.rate_s_per_token)
        if not np.isfinite(self.offset_s):
            raise InputError(f"offset_s must be a finite number, got {self.offset_s}")

    def __call__(self, tokens: ArrayLike) -> FloatArray:
        """Return seconds, in the shape of `tokens`."""
        line = self.offset_s + self.rate_s_per_token * np.asarray(tokens, dtype=float)
        return np.maximum(self.floor_s, line)

    def knots(self) -> tuple[FloatArray, FloatArray]:
        """Return tokens and seconds of the corners; the last slope goes on for ever."""
        if self.rate_s_per_token == 0.0:
            flat = max(self.floor_s, self.offset_s)
            return np.array([0.0, 1.0]), np.array([flat, flat])
        hinge = max((self.floor_s - self.offset_s) / self.rate_s_per_token, 0.0)
        tokens = np.array([hinge, hinge + max(1.0, hinge)])
        return tokens, self(tokens)


@dataclass(frozen=True)
class TabulatedPrefill:
    """Straight lines between measured points; flat below the first, the last slope beyond the last.

    Attributes:
        tokens: prompt tokens of the points, ascending.
        seconds: step time at each point.

    Raises:
        InputError: if the points are too few, not ascending, negative or not finite.
    """

    tokens: Sequence[float]
    seconds: Sequence[float]

    def __post_init__(self) -> None:
        _store_points(self, "tokens", "seconds")

    def __call__(self, tokens: ArrayLike) -> FloatArray:
        """Return seconds, in the shape of `tokens`."""
        return _interpolate(np.asarray(tokens, dtype=float), *self.knots())

    def knots(self) -> tuple[FloatArray, FloatArray]:
        """Return tokens and seconds of the corners; the last slope goes on for ever."""
        return np.array(self.tokens), np.array(self.seconds)


@dataclass(frozen=True)
class BudgetedPrefill:
    """A refill cut into prefill steps of at most `budget_tokens` tokens each.

    Attributes:
        curve: seconds of one prefill step.
        budget_tokens: most prompt tokens in a step (vLLM's `max_num_batched_tokens`).

    Raises:
        InputError: if the budget is not positive.
    """

    curve: PrefillCurve
    budget_tokens: float

    def __post_init__(self) -> None:
        check_positive("budget_tokens", self.budget_tokens)

    def __call__(self, tokens: ArrayLike) -> FloatArray:
        """Return seconds of the whole refill, in the shape of `tokens`."""
        total = np.asarray(tokens, dtype=float)
        # At least one step is needed, and a refill of exactly one budget needs only one.
        full = np.maximum(np.ceil(total / self.budget_tokens) - 1.0, 0.0)
        rest = total - full * self.budget_tokens
        return np.asarray(full * self.curve(self.budget_tokens) + self.curve(rest))


@dataclass(frozen=True)
class LinearDecode:
    """alpha_d + beta_d · requests.

    Attributes:
        alpha_d: seconds.
        beta_d: seconds per active request.

    Raises:
        InputError: if a parameter is negative or not finite.
    """

    alpha_d: float
    beta_d: float
    context_slope: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_not_negative("alpha_d", self.alpha_d)
        check_not_negative("beta_d", self.beta_d)

    def __call__(self, requests: ArrayLike, context_tokens: ArrayLike = 0.0) -> FloatArray:
        """Return seconds, in the broadcast shape of the arguments."""
        flat = self.alpha_d + self.beta_d * np.asarray(requests, dtype=float)
        return flat + 0.0 * np.asarray(context_tokens, dtype=float)


@dataclass(frozen=True)
class ContextDecode:
    """alpha_d + beta_d · requests + gamma_d · context tokens.

    Attributes:
        alpha_d: seconds.
        beta_d: seconds per active request.
        gamma_d: seconds per KV token held by the active requests.

    Raises:
        InputError: if a parameter is negative or not finite.
    """

    alpha_d: float
    beta_d: float
    gamma_d: float

    def __post_init__(self) -> None:
        for name in ("alpha_d", "beta_d", "gamma_d"):
            check_not_negative(name, getattr(self, name))

    @property
    def context_slope(self) -> float:
        """Seconds per KV token held."""
        return self.gamma_d

    def __call__(self, requests: ArrayLike, context_tokens: ArrayLike = 0.0) -> FloatArray:
        """Return seconds, in the broadcast shape of the arguments."""
        flat = self.alpha_d + self.beta_d * np.asarray(requests, dtype=float)
        return flat + self.gamma_d * np.asarray(context_tokens, dtype=float)


@dataclass(frozen=True)
class TabulatedDecode:
    """Straight lines between measured points; flat below the first, the last slope beyond the last.

    Attributes:
        requests: active requests of the points, ascending.
        seconds: step time at each point.

    Raises:
        InputError: if the points are too few, not ascending, negative or not finite.
    """

    requests: Sequence[float]
    seconds: Sequence[float]
    context_slope: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _store_points(self, "requests", "seconds")

    def __call__(self, requests: ArrayLike, context_tokens: ArrayLike = 0.0) -> FloatArray:
        """Return seconds, in the broadcast shape of the arguments."""
        knots = np.array(self.requests), np.array(self.seconds)
        flat = _interpolate(np.asarray(requests, dtype=float), *knots)
        return flat + 0.0 * np.asarray(context_tokens, dtype=float)


def _store_points(curve: object, x_name: str, y_name: str) -> None:
    x = np.asarray(getattr(curve, x_name), dtype=float)
    y = np.asarray(getattr(curve, y_name), dtype=float)
    if x.ndim != 1 or x.shape != y.shape or x.size < 1:
        raise InputError(
            f"{x_name} and {y_name} must be lists of one length, at least 1, "
            f"got shapes {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and (np.diff(x) > 0).all() and x[0] >= 0):
        raise InputError(f"{x_name} of a table must ascend from 0 or more, got {x.tolist()}")
    if not (np.isfinite(y).all() and (y >= 0).all()):
        raise InputError(f"{y_name} of a table must be finite and not negative, got {y.tolist()}")
    # Frozen dataclasses are written this way in __post_init__; tuples keep them hashable.
    object.__setattr__(curve, x_name, tuple(x.tolist()))
    object.__setattr__(curve, y_name, tuple(y.tolist()))


def _interpolate(at: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    inside = np.interp(at, x, y)
    if x.size < 2:
        return np.asarray(inside)
    # A falling last segment is noise: it must not lead to negative times far out.
    slope = max((y[-1] - y[-2]) / (x[-1] - x[-2]), 0.0)
    return np.asarray(inside + slope * np.maximum(at - x[-1], 0.0))
