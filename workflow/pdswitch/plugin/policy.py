"""When to stop decoding and prefill: the switching policy and its online form.

Knows neither vLLM nor the theory: an adaptive policy brings its table p -> k* along, so that
editing the theory never invalidates a measurement.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

import msgspec

from pdswitch.errors import InputError
from pdswitch.plugin.online_estimators import EstimatorName, make_estimator

# Why a refill began: no request was running, k slots were free, all that waited fitted in, or the
# oldest waiting request had waited max_hold_s.
RefillCause = Literal["idle", "threshold", "drain", "max_hold"]

# Ranges of what a policy may ask for: a policy can come from a stranger, and whatever is admitted
# here must neither overflow a number nor fill the memory of the engine later.
LARGEST_COUNT = 2**31 - 1
LARGEST_WINDOW = 100_000
LARGEST_TABLE = 65_536
SMALLEST_PROBABILITY = 1e-9


class ThresholdTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The step function p -> k*.

    Attributes:
        p_edges: ascending termination probabilities at which k* changes, length m.
        thresholds: k* between the edges, length m + 1; ``thresholds[i]`` holds for
            ``p_edges[i-1] <= p < p_edges[i]``.
    """

    p_edges: list[float]
    thresholds: list[int]

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.p_edges) + 1:
            raise InputError(
                f"a threshold table needs one threshold more than edges, got "
                f"{len(self.thresholds)} thresholds for {len(self.p_edges)} edges"
            )
        if len(self.thresholds) > LARGEST_TABLE:
            raise InputError(
                f"a threshold table has at most {LARGEST_TABLE} thresholds, got "
                f"{len(self.thresholds)}"
            )
        if not all(0 <= edge <= 1 for edge in self.p_edges):
            raise InputError("the p_edges of a threshold table must lie in [0, 1]")
        if any(a >= b for a, b in zip(self.p_edges, self.p_edges[1:], strict=False)):
            raise InputError("the p_edges of a threshold table must ascend strictly")
        if min(self.thresholds) < 1:
            raise InputError("the thresholds of a threshold table must be at least 1")

    def lookup(self, termination_probability: float) -> int:
        """Return k* at this termination probability."""
        return self.thresholds[bisect_left(self.p_edges, termination_probability)]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A switching policy, as it travels to the scheduler.

    Attributes:
        kind: ``mixed`` is vLLM's own continuous batching; ``fixed`` refills at `threshold` free
            slots; ``adaptive`` looks the threshold up in `table` at the estimated p.
        threshold: k, in slots; for ``adaptive`` the k before the first update.
        drain: with fewer than k requests waiting, ``eager`` refills as soon as they all fit,
            ``strict`` still waits for k free slots or an idle engine.
        max_hold_s: latency guard: once the oldest waiting request has waited so many seconds since
            it arrived, every free slot is filled at once, whatever k is; None for no guard. Where
            more requests wait than slots become free, that is k = 1 from then on.
        table: p -> k*, for ``adaptive``.
        update_interval: completions between two look-ups.
        estimator: how p is estimated from the completed outputs.
        smoothing: weight of the newest observation in the exponential moving averages.
        window: completions that the estimators ``window`` and ``completions_per_token`` look back
            on.
        initial_probability: p before the first completion; None starts from the first one.
    """

    kind: Literal["mixed", "fixed", "adaptive"] = "mixed"
    threshold: int = 1
    drain: Literal["eager", "strict"] = "eager"
    max_hold_s: float | None = None
    table: ThresholdTable | None = None
    update_interval: int = 32
    estimator: EstimatorName = "ema_length"
    smoothing: float = 0.3
    window: int = 64
    initial_probability: float | None = None

    def __post_init__(self) -> None:
        for name, largest in [
            ("threshold", LARGEST_COUNT),
            ("update_interval", LARGEST_COUNT),
            ("window", LARGEST_WINDOW),
        ]:
            if not 1 <= getattr(self, name) <= largest:
                raise InputError(f"{name} must be from 1 to {largest}, got {getattr(self, name)}")
        if not 0 < self.smoothing <= 1:
            raise InputError(f"smoothing must be in (0, 1], got {self.smoothing}")
        if self.max_hold_s is not None and not self.max_hold_s > 0:
            raise InputError(
                f"max_hold_s must be above 0, got {self.max_hold_s}; leave it out for no guard"
            )
        if (
            self.initial_probability is not None
            and not SMALLEST_PROBABILITY <= self.initial_probability <= 1
        ):
            raise InputError(
                f"initial_probability must be from {SMALLEST_PROBABILITY:g} to 1, got "
                f"{self.initial_probability}"
            )
        if self.kind == "adaptive" and self.table is None:
            raise InputError("an adaptive policy needs a table p -> k*; give table, or use fixed")

    def refill_cause(
        self, threshold: int, free: int, waiting: int, running: int, waited_s: float = 0.0
    ) -> RefillCause | None:
        """Say why to stop decoding and refill now, or None to go on decoding.

        Args:
            threshold: k in force.
            free: slots without a request.
            waiting: requests without a slot.
            running: requests in slots.
            waited_s: how long the oldest of the waiting requests has waited, s.
        """
        if waiting == 0 or free == 0:
            return None
        if running == 0:
            return "idle"
        if free >= threshold:
            return "threshold"
        if self.drain == "eager" and free >= waiting:
            return "drain"
        if self.max_hold_s is not None and waited_s >= self.max_hold_s:
            return "max_hold"
        return None


class KStarUpdate(msgspec.Struct, frozen=True):
    """One look-up of the adaptive policy; `time_s` counts from the run's first step."""

    completions: int
    time_s: float
    termination_probability: float
    threshold: int


class Controller:
    """Holds the threshold in force during one run and moves it if the policy is adaptive.

    Args:
        policy: the run's policy.
        n_slots: N; a threshold above N could never be reached and is refused.
        keeps_history: whether `history` collects the look-ups; a server's own controller serves
            for months and must not.

    Raises:
        InputError: if the policy's threshold does not fit into N slots.
    """

    def __init__(self, policy: Policy, n_slots: int, *, keeps_history: bool = True) -> None:
        largest = max([policy.threshold, *(policy.table.thresholds if policy.table else [])])
        if policy.kind != "mixed" and largest > n_slots:
            raise InputError(
                f"threshold {largest} exceeds the {n_slots} slots of this engine; "
                f"use a threshold from 1 to {n_slots}"
            )
        self.policy = policy
        self.threshold = 0 if policy.kind == "mixed" else policy.threshold
        self.history: list[KStarUpdate] = []
        self.completions = 0
        self._keeps_history = keeps_history
        self._table = policy.table if policy.kind == "adaptive" else None
        self._estimator = make_estimator(
            policy.estimator,
            smoothing=policy.smoothing,
            window=policy.window,
            initial_probability=policy.initial_probability,
        )

    def completed(
        self, output_tokens: int, time_s: float, tokens_in_progress: Callable[[], int]
    ) -> None:
        """Take note of a request that ended by itself.

        Args:
            output_tokens: what it generated; a request without a token says nothing of p.
            time_s: seconds from the run's first step.
            tokens_in_progress: counts the tokens generated so far by requests that go on.
        """
        table = self._table
        if table is None or output_tokens < 1:
            return
        self.completions += 1
        self._estimator.observe(output_tokens)
        if self.completions % self.policy.update_interval == 0:
            probability = self._estimator.look_up(tokens_in_progress)
            self.threshold = table.lookup(probability)
            if self._keeps_history:
                self.history.append(
                    KStarUpdate(self.completions, time_s, probability, self.threshold)
                )

    def aborted(self, output_tokens: int) -> None:
        """Take note of a request that was aborted after `output_tokens` tokens."""
        if self._table is not None:
            self._estimator.observe_cut(output_tokens)
