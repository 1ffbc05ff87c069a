"""A discrete-event simulator of the switching policy: the referee between formula and engine."""

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError
from pdswitch.simulation import _kernel
from pdswitch.theory.curves import FloatArray, StepCurves
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import check_not_negative, check_slots

if TYPE_CHECKING:
    import pandas as pd

IntArray = NDArray[np.int64]
PolicyKind = Literal["fixed", "mixed"]
Drain = Literal["eager", "strict"]

UNLIMITED = 2**62


@dataclass(frozen=True)
class MixedStep:
    """Time of a step that prefills and decodes at once.

    fixed_s + s_per_prefill_token·tokens + s_per_request·j; a decode curve's context term is added.

    Attributes:
        fixed_s: seconds.
        s_per_prefill_token: seconds per prompt token.
        s_per_request: seconds per decoding request.

    Raises:
        InputError: if a parameter is negative or not finite.
    """

    fixed_s: float
    s_per_prefill_token: float
    s_per_request: float

    def __post_init__(self) -> None:
        check_not_negative("fixed_s", self.fixed_s)
        check_not_negative("s_per_prefill_token", self.s_per_prefill_token)
        check_not_negative("s_per_request", self.s_per_request)


@dataclass(frozen=True)
class SimulationResult:
    """What a simulated run leaves behind.

    Attributes:
        policy: ``fixed`` or ``mixed``.
        threshold: k; 0 under ``mixed``.
        n_slots: N.
        makespan_s: seconds from the first step to the last completion.
        throughput: requests per second over the makespan.
        steady_throughput: requests per second from the end of the first full refill until fewer
            than N requests wait; NaN if that window is empty.
        refills: steps that only prefilled.
        step_count: all steps.
        peak_context_tokens: most KV tokens held at once.
        cycle_peak_tokens: most KV tokens held in each cycle, refill to refill.
        cycle_start_s: start of each cycle, seconds.
        steady_window_s: start and end of the steady window, seconds.
        requests: numbers of the request record, arrays by column, in the order of service.
        steps: columns of the step record, arrays by name; None unless recorded.
    """

    policy: PolicyKind
    threshold: int
    n_slots: int
    makespan_s: float
    throughput: float
    steady_throughput: float
    refills: int
    step_count: int
    peak_context_tokens: int
    cycle_peak_tokens: IntArray
    cycle_start_s: FloatArray
    steady_window_s: tuple[float, float]
    requests: dict[str, NDArray[np.generic]]
    steps: dict[str, NDArray[np.generic]] | None

    def over_budget_probability(self, budget_tokens: float, after_s: float = 0.0) -> float:
        """Return the part of the steady cycles whose peak KV need exceeds a budget.

        Args:
            budget_tokens: KV tokens.
            after_s: cycles that begin earlier are left out, seconds; the ages of the requests,
                alike at the start, need a few mean output lengths to mix.

        Raises:
            InputError: if no whole cycle is left.
        """
        start, end = self.steady_window_s
        following = np.append(self.cycle_start_s[1:], np.inf)
        steady = (self.cycle_start_s >= max(start, after_s)) & (following <= end)
        if not steady.any():
            raise InputError(
                "the run has no whole cycle in its steady window; simulate more requests"
            )
        return float((self.cycle_peak_tokens[steady] > budget_tokens).mean())

    def requests_frame(self) -> "pd.DataFrame":
        """Return the request record as a data frame."""
        import pandas as pd

        count = len(self.requests["finish_s"])
        frame = pd.DataFrame(self.requests)
        frame.insert(0, "request_id", pd.Series(range(count)).astype("string"))
        # A simulated request generates exactly what it was asked for.
        frame.insert(4, "finish_reason", pd.Series("length", index=range(count), dtype="string"))
        return frame

    def steps_frame(self) -> "pd.DataFrame":
        """Return the step record as a data frame.

        Raises:
            InputError: if the run was not recorded.
        """
        import pandas as pd

        if self.steps is None:
            raise InputError("this run kept no steps; simulate with record=True")
        return pd.DataFrame(self.steps).astype({"refill_cause": "string"})


def simulate(
    output_tokens: ArrayLike,
    prompt_tokens: ArrayLike,
    n_slots: int,
    threshold: int,
    step_times: StepTimes | StepCurves,
    *,
    policy: PolicyKind = "fixed",
    drain: Drain = "eager",
    max_num_batched_tokens: int | None = None,
    arrival_s: ArrayLike | None = None,
    mixed_step: MixedStep | None = None,
    block_size: int = 16,
    record: bool = False,
) -> SimulationResult:
    """Serve requests in order under a policy, step by step.

    ``fixed``: decode until `threshold` slots are free, then prefill only, in as many steps as the
    token budget needs, then decode again. ``mixed``: every step decodes all running requests and
    fills the rest of the budget with prompt tokens. A prefill emits the first token of a request;
    l tokens take l-1 decode steps. Deterministic: the same lengths under different thresholds are
    common random numbers.

    Args:
        output_tokens: tokens each request generates, at least 1, in the order of service.
        prompt_tokens: tokens of each prompt, at least 1; one number means all alike.
        n_slots: N, slots.
        threshold: k, in 1..N; not used under ``mixed``.
        step_times: linear times, or a prefill curve with corners and a decode curve affine in
            the context, as the classes of `pdswitch.theory` are.
        policy: ``fixed`` or ``mixed``.
        drain: with fewer than k requests waiting, ``eager`` refills as soon as they all fit,
            ``strict`` still waits for k free slots or an idle engine.
        max_num_batched_tokens: most tokens in a step; None means no limit.
        arrival_s: arrival of each request, seconds, ascending; None means all at 0.
        mixed_step: step time with prefill and decode together; None takes the larger of the
            prefill curve at all tokens of the step and the decode step.
        block_size: tokens of a KV block.
        record: keep the step record.

    Raises:
        InputError: for arguments outside their range.
    """
    workload = _workload(output_tokens, prompt_tokens, arrival_s)
    rules = _rules(n_slots, threshold, policy, drain, max_num_batched_tokens)
    check_slots(block_size, "block_size")
    arguments = (workload, rules, _step_law(step_times, n_slots, mixed_step), block_size)
    times, columns = _kernel.step_arrays(0)
    admitted, first, finish, totals, window, peaks, starts = _kernel.run(*arguments, times, columns)
    if record:
        # The first run has counted the steps.
        times, columns = _kernel.step_arrays(int(totals[_kernel.STEPS]))
        _kernel.run(*arguments, times, columns)
    makespan = float(finish.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        throughput = float(np.float64(finish.size) / makespan)
        steady = float(totals[_kernel.STEADY_COMPLETIONS] / (window[1] - window[0]))
    in_force = 0 if policy == "mixed" else threshold
    lengths = workload.output_tokens.astype(np.int32)
    return SimulationResult(
        policy=policy,
        threshold=in_force,
        n_slots=n_slots,
        makespan_s=makespan,
        throughput=throughput,
        steady_throughput=steady,
        refills=int(totals[_kernel.REFILLS]),
        step_count=int(totals[_kernel.STEPS]),
        peak_context_tokens=int(totals[_kernel.PEAK_CONTEXT]),
        cycle_peak_tokens=peaks,
        cycle_start_s=starts,
        steady_window_s=(float(window[0]), float(window[1])),
        requests={
            "prompt_tokens": workload.prompt_tokens.astype(np.int32),
            "max_tokens": lengths,
            "output_tokens": lengths.copy(),
            "arrival_s": workload.arrival_s,
            "admitted_s": admitted,
            "first_token_s": first,
            "finish_s": finish,
            "preemptions": np.zeros(finish.size, dtype=np.int32),
        },
        steps=_step_columns(times, columns, in_force) if record else None,
    )


def _workload(
    output_tokens: ArrayLike, prompt_tokens: ArrayLike, arrival_s: ArrayLike | None
) -> _kernel.Workload:
    output = _counts("output_tokens", output_tokens)
    prompt = np.ascontiguousarray(np.broadcast_to(np.asarray(prompt_tokens), output.shape))
    return _kernel.Workload(
        output, _counts("prompt_tokens", prompt), _arrivals(arrival_s, output.size)
    )


def _rules(
    n_slots: int,
    threshold: int,
    policy: PolicyKind,
    drain: Drain,
    max_num_batched_tokens: int | None,
) -> _kernel.Rules:
    check_slots(n_slots)
    if policy not in get_args(PolicyKind) or drain not in get_args(Drain):
        raise InputError(
            f"policy must be fixed or mixed and drain eager or strict, got {policy!r}, {drain!r}"
        )
    if policy == "fixed" and not 1 <= threshold <= n_slots:
        raise InputError(f"threshold must be from 1 to n_slots = {n_slots}, got {threshold}")
    budget = UNLIMITED if max_num_batched_tokens is None else max_num_batched_tokens
    if budget < (n_slots + 1 if policy == "mixed" else 1):
        raise InputError(
            f"max_num_batched_tokens = {budget} leaves no room for prefill beside {n_slots} "
            "decoding requests; raise it above n_slots"
        )
    return _kernel.Rules(n_slots, threshold, policy == "mixed", drain == "eager", budget)


def _step_law(
    step_times: StepTimes | StepCurves, n_slots: int, mixed_step: MixedStep | None
) -> _kernel.StepLaw:
    curves = step_times.curves if isinstance(step_times, StepTimes) else step_times
    knots = getattr(curves.prefill, "knots", None)
    slope = getattr(curves.decode, "context_slope", None)
    if knots is None or slope is None:
        raise InputError(
            "the simulator needs a prefill curve with corners and a decode curve affine in the "
            "context; tabulate yours with TabulatedPrefill and TabulatedDecode"
        )
    base = np.concatenate(([0.0], curves.decode(np.arange(1.0, n_slots + 1.0), 0.0)))
    mixed = np.array(astuple(mixed_step) if mixed_step else (), dtype=float)
    prefill_x, prefill_y = knots()
    return _kernel.StepLaw(prefill_x, prefill_y, base, float(slope), mixed)


def _step_columns(
    times: FloatArray, columns: IntArray, threshold: int
) -> dict[str, NDArray[np.generic]]:
    done, duration = times[:, 0], times[:, 1]
    count = len(done)
    whole = columns.astype(np.int32)
    zeros = np.zeros(count, dtype=np.int32)
    return {
        "step": np.arange(count, dtype=np.int32),
        "schedule_s": done - duration,
        "done_s": done,
        "duration_s": duration,
        "prefill_requests": whole[:, _kernel.PREFILL_REQUESTS],
        "prefill_tokens": whole[:, _kernel.PREFILL_TOKENS],
        "admitted": whole[:, _kernel.ADMITTED],
        "decode_requests": whole[:, _kernel.DECODE_REQUESTS],
        "context_tokens": columns[:, _kernel.CONTEXT_TOKENS].copy(),
        "running": whole[:, _kernel.RUNNING],
        "waiting": whole[:, _kernel.WAITING],
        "threshold": np.full(count, threshold, dtype=np.int32),
        "finished": whole[:, _kernel.FINISHED],
        "kv_blocks": whole[:, _kernel.KV_BLOCKS],
        "preempted": zeros,
        "cached_tokens": zeros,
        "refill_cause": _refill_causes(whole, threshold),
    }


def _refill_causes(columns: NDArray[np.int32], threshold: int) -> NDArray[np.generic]:
    """Return why each refill began, as the scheduler records it; the simulator has no guard.

    A refill right after another one, whose requests all had one token, counts as its continuation.
    """
    prefill = columns[:, _kernel.PREFILL_TOKENS] > 0
    before = columns[:, _kernel.RUNNING] - columns[:, _kernel.ADMITTED]
    free = columns[:, _kernel.RUNNING].max(initial=0) - before
    return np.select(
        [
            ~prefill | (threshold == 0),
            np.concatenate([[False], prefill[:-1]]),
            before == 0,
            free >= threshold,
        ],
        ["", "continued", "idle", "threshold"],
        default="drain",
    )


def _counts(name: str, values: ArrayLike) -> IntArray:
    counts = np.asarray(values)
    if counts.ndim != 1 or counts.size == 0:
        raise InputError(f"{name} must be a list with one number per request, at least one")
    if not (
        np.isfinite(counts).all() and (counts >= 1).all() and (counts == np.rint(counts)).all()
    ):
        raise InputError(f"{name} must be whole numbers of at least 1")
    return np.ascontiguousarray(counts, dtype=np.int64)


def _arrivals(arrival_s: ArrayLike | None, count: int) -> FloatArray:
    if arrival_s is None:
        return np.zeros(count)
    arrival = np.ascontiguousarray(arrival_s, dtype=float)
    if arrival.shape != (count,) or not np.isfinite(arrival).all() or (np.diff(arrival) < 0).any():
        raise InputError(f"arrival_s must be {count} finite, ascending times, one per request")
    return arrival
