"""Online estimators of the termination probability p, fed with the requests as they end.

They run inside the scheduler, between two steps of the model: constant time per completion, and a
memory of at most `window` numbers. An estimator is one class: config and policy ask for it by its
`name`, and its parameters are some of `smoothing`, `window` and `initial_probability`. Stationary
bias and variance are derived in `pdswitch.estimation.moments`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, ClassVar, Literal

from pdswitch.errors import InputError


class OnlineEstimator(ABC):
    """Estimates p from output lengths as they come.

    Attributes:
        name: what config and policy call it.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def probability(self) -> float:
        """The current estimate of p, per token.

        Raises:
            InputError: before the first completion, if no initial probability was given.
        """

    @abstractmethod
    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""

    def observe_cut(self, output_tokens: int) -> None:  # noqa: B027
        """Take in the tokens of a request that was aborted: trials that ended nothing.

        Nothing to most estimators, which know completed lengths only.
        """

    def look_up(self, tokens_in_progress: Callable[[], int]) -> float:
        """Return the estimate for a decision.

        Args:
            tokens_in_progress: counts the tokens generated so far by requests that have not ended;
                called only if the estimator makes use of them.
        """
        return self.probability


class EmaLength(OnlineEstimator):
    """Exponential moving average of the length L; p = 1 / average."""

    name = "ema_length"

    def __init__(self, smoothing: float, initial_probability: float | None) -> None:
        self._smoothing = smoothing
        self._mean = None if initial_probability is None else 1.0 / initial_probability

    @property
    def probability(self) -> float:
        """The current estimate of p, per token."""
        return 1.0 / _known(self._mean)

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        if self._mean is None:
            self._mean = float(output_tokens)
        else:
            # `mean += smoothing * difference` would lose a length beside a huge mean.
            self._mean = (1 - self._smoothing) * self._mean + self._smoothing * output_tokens


class EmaInverse(OnlineEstimator):
    """Exponential moving average of 1/L, as the reference document writes it.

    Biased upward, because E[1/L] > 1/E[L]; kept for comparison.
    """

    name = "ema_inverse"

    def __init__(self, smoothing: float, initial_probability: float | None) -> None:
        self._smoothing = smoothing
        self._probability = initial_probability

    @property
    def probability(self) -> float:
        """The current estimate of p, per token."""
        return _known(self._probability)

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        inverse = 1.0 / output_tokens
        if self._probability is None:
            self._probability = inverse
        else:
            self._probability += self._smoothing * (inverse - self._probability)


class Window(OnlineEstimator):
    """1 / mean length of the last `window` completions."""

    name = "window"

    def __init__(self, window: int, initial_probability: float | None) -> None:
        self._lengths: deque[int] = deque(maxlen=window)
        self._sum = 0
        self._initial = initial_probability

    @property
    def probability(self) -> float:
        """The current estimate of p, per token."""
        return len(self._lengths) / self._sum if self._lengths else _known(self._initial)

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        if len(self._lengths) == self._lengths.maxlen:
            self._sum -= self._lengths[0]
        self._lengths.append(output_tokens)
        self._sum += output_tokens


class CompletionsPerToken(OnlineEstimator):
    """Completions over all tokens generated meanwhile, those of unfinished requests included.

    Every token is a trial, and a request still running has made as many as it has tokens: the
    maximum-likelihood estimate under censoring. Completed lengths alone lag behind: after a shift
    to longer answers the first to end are the short ones, while the tokens of the long ones count
    here as they are generated. The window reaches from a look-up back to the last one that lies at
    least `window` completions before it, or to the start.
    """

    name = "completions_per_token"

    def __init__(self, window: int, initial_probability: float | None) -> None:
        self._window = window
        self._initial = initial_probability
        self._ended = 0
        self._tokens_of_ended = 0
        # (completions, tokens generated) at the start and at look-ups.
        self._points: deque[tuple[int, int]] = deque([(0, 0)])

    @property
    def probability(self) -> float:
        """The estimate at the last look-up, per token."""
        (ended, tokens), (ended_now, tokens_now) = self._points[0], self._points[-1]
        if ended_now == ended:
            return _known(self._initial)
        # Stop strings end requests a step late: many at once, it may be, without a further token.
        return min(1.0, (ended_now - ended) / max(tokens_now - tokens, 1))

    def observe(self, output_tokens: int) -> None:
        """Take in the length of one completed output (at least 1 token)."""
        self._ended += 1
        self._tokens_of_ended += output_tokens

    def observe_cut(self, output_tokens: int) -> None:
        """Take in the tokens of a request that was aborted: trials that ended nothing."""
        self._tokens_of_ended += output_tokens

    def look_up(self, tokens_in_progress: Callable[[], int]) -> float:
        """Move the window up to now and return the estimate."""
        self._points.append((self._ended, self._tokens_of_ended + tokens_in_progress()))
        while len(self._points) > 2 and self._points[1][0] <= self._ended - self._window:
            self._points.popleft()
        return self.probability


ESTIMATORS = {found.name: found for found in OnlineEstimator.__subclasses__()}
if TYPE_CHECKING:
    EstimatorName = str
else:
    EstimatorName = Literal[tuple(ESTIMATORS)]


def make_estimator(
    name: EstimatorName,
    *,
    smoothing: float,
    window: int,
    initial_probability: float | None,
) -> OnlineEstimator:
    """Return the estimator of that name.

    Args:
        name: which.
        smoothing: weight of the newest observation in the moving averages, in (0, 1].
        window: completions that `Window` and `CompletionsPerToken` look back on, at least 1.
        initial_probability: p before the first completion; None if unknown.
    """
    known = {
        "smoothing": smoothing,
        "window": window,
        "initial_probability": initial_probability,
    }
    found = ESTIMATORS[name]
    return found(**{parameter: known[parameter] for parameter in signature(found).parameters})


def _known(value: float | None) -> float:
    if value is None:
        raise InputError("p is unknown before the first completion; give initial_probability")
    return value
