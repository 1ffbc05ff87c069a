"""A run: what the first of its requests orders, and the rows recorded until the last has ended."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pdswitch.policy import Controller, Policy
from pdswitch.record import RequestRow, RunRecord, Step

if TYPE_CHECKING:
    from vllm.v1.request import Request

ORDER_KEY = "pdswitch"
NAN = float("nan")


class RunOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the first request of a run carries in `SamplingParams.extra_args["pdswitch"]`.

    Attributes:
        policy: in force from the run's first step.
        requests: size of the run; its first step waits until all of them have arrived.
        record_path: where the record is written when the last request has ended; None for nowhere.
    """

    policy: Policy
    requests: int = 1
    record_path: str | None = None


def read_order(value: Any) -> RunOrder:
    """Return the order that a request carries.

    Raises:
        ValueError: if it is none.
    """
    # Over HTTP, extra arguments are plain values: there the order comes as JSON text.
    if isinstance(value, str):
        return msgspec.json.decode(value, type=RunOrder)
    return msgspec.convert(value, type=RunOrder)


class PendingStep(msgspec.Struct):
    """A scheduled step whose output has not arrived yet.

    `run` is None for a step that belongs to no run; `first_tokens` names the requests whose
    prompt the step completes; the other fields are those of `Step`.
    """

    run: "Run | None"
    scheduled: float
    prefill_requests: int
    prefill_tokens: int
    admitted: int
    decode_requests: int
    context_tokens: int
    running: int
    waiting: int
    threshold: int
    kv_blocks: int
    preempted: int
    cached_tokens: int
    refill_cause: str
    first_tokens: list[str]


class Run:
    """A run in progress: its order, the requests it has seen, and the rows recorded so far."""

    def __init__(self, order: RunOrder, n_slots: int) -> None:
        self.order = order
        self.controller = Controller(order.policy, n_slots)
        self.arrived = 0
        self.ended = 0
        self.start: float | None = None
        self._last_done = 0.0
        self._steps: list[Step] = []
        self._requests: list[RequestRow] = []
        self._arrival: dict[str, float] = {}
        self._admitted: dict[str, float] = {}
        self._first_token: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._arrival

    @property
    def complete(self) -> bool:
        """Whether every request has arrived, so that the first step may begin."""
        return self.arrived >= self.order.requests

    @property
    def over(self) -> bool:
        """Whether every request has arrived and ended."""
        return self.complete and self.ended >= self.arrived

    def seconds(self, moment: float) -> float:
        """Seconds from the run's first step to this moment of the monotonic clock."""
        return NAN if self.start is None else moment - self.start

    def begin(self, now: float) -> None:
        """Take this moment of the monotonic clock as the run's first step."""
        self.start = self._last_done = now

    def request_arrived(self, name: str, now: float) -> None:
        """Count a request in."""
        self.arrived += 1
        self._arrival[name] = now

    def request_admitted(self, name: str, now: float) -> None:
        """Note when a request got its first slot."""
        self._admitted.setdefault(name, self.seconds(now))

    def first_tokens(self, names: list[str], now: float) -> None:
        """Note when the first token of requests came."""
        for name in names:
            self._first_token.setdefault(name, self.seconds(now))

    def request_ended(self, request: "Request", now: float) -> None:
        """Count a request out, whatever ended it, and record it."""
        name = request.request_id
        self.ended += 1
        self._requests.append(
            RequestRow(
                request_id=name,
                prompt_tokens=request.num_prompt_tokens,
                max_tokens=request.max_tokens,
                output_tokens=request.num_output_tokens,
                finish_reason=str(request.get_finished_reason()),
                arrival_s=self.seconds(self._arrival[name]),
                admitted_s=self._admitted.get(name, NAN),
                first_token_s=self._first_token.get(name, NAN),
                finish_s=self.seconds(now),
                preemptions=request.num_preemptions,
            )
        )

    def step_done(self, pending: PendingStep, done: float, finished: int) -> None:
        """Record a step whose output has arrived.

        Args:
            pending: what was scheduled.
            done: moment of the monotonic clock at which the output arrived.
            finished: requests that ended with it.
        """
        self._steps.append(
            Step(
                step=len(self._steps),
                schedule_s=self.seconds(pending.scheduled),
                done_s=self.seconds(done),
                duration_s=done - max(pending.scheduled, self._last_done),
                prefill_requests=pending.prefill_requests,
                prefill_tokens=pending.prefill_tokens,
                admitted=pending.admitted,
                decode_requests=pending.decode_requests,
                context_tokens=pending.context_tokens,
                running=pending.running,
                waiting=pending.waiting,
                threshold=pending.threshold,
                finished=finished,
                kv_blocks=pending.kv_blocks,
                preempted=pending.preempted,
                cached_tokens=pending.cached_tokens,
                refill_cause=pending.refill_cause,
            )
        )
        self._last_done = done

    def write(self) -> None:
        """Write the record where the order wants it.

        A full disk, or the folder of an aborted run that has gone, is no reason for the engine to
        end: whoever wants the record misses it and says so.
        """
        if self.order.record_path is not None:
            record = RunRecord(self._steps, self._requests, list(self.controller.history))
            try:
                record.write(Path(self.order.record_path))
            except OSError as error:
                print(f"the record of a run was not written: {error}", file=sys.stderr)
