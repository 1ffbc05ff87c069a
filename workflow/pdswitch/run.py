"""A run: what its requests order, and the rows recorded until the last of them has ended."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pdswitch.policy import Controller, Policy
from pdswitch.record import RequestRow, RunRecord, Step

if TYPE_CHECKING:
    from vllm.v1.request import Request

ORDER_KEY = "pdswitch"
NAN = float("nan")
LONGEST_PATIENCE_S = 60.0

logger = logging.getLogger(__name__)


class RunOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request carries in `SamplingParams.extra_args["pdswitch"]` to order a run.

    The first request of a run brings it. Others may bring the same again, as the children of a
    request with n > 1 do, and clients that give every request its policy: they join the run.

    Attributes:
        policy: in force from the run's first step until its last request has ended.
        requests: size of the run, every one of a request's n answers counted; its first step waits
            until all of them have arrived.
        record_path: where the record is written when the last request has ended; None for nowhere.
        patience_s: if so long no further request has arrived, the run begins without the rest.
    """

    policy: Policy
    requests: int = 1
    record_path: str | None = None
    patience_s: float = 30.0

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ValueError(f"requests must be at least 1, got {self.requests}")


class SchedulerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``additional_config["pdswitch"]`` may say.

    Attributes:
        policy: in force while no run is.
        record_folder: where clients over HTTP may have records written; None for nowhere.
    """

    policy: Policy = Policy()
    record_folder: str | None = None


def read_order(value: Any, record_folder: str | None) -> RunOrder:
    """Return the order that a request carries.

    Args:
        value: a mapping; or JSON text, as over HTTP, where extra arguments are plain values. The
            client is then someone else: its `record_path` is the name of a file in a folder that
            the server names.
        record_folder: that folder.

    Raises:
        ValueError: if it is no order, or one that may not be given.
    """
    try:
        if not isinstance(value, str):
            return msgspec.convert(value, type=RunOrder)
        order = msgspec.json.decode(value, type=RunOrder)
    except msgspec.MsgspecError as error:
        raise ValueError(f"extra_args[{ORDER_KEY!r}] is no order of a run: {error}") from error
    if order.patience_s > LONGEST_PATIENCE_S:
        raise ValueError(
            f"over HTTP, patience_s is at most {LONGEST_PATIENCE_S:g}: new requests of everybody "
            f"wait for the run; got {order.patience_s:g}"
        )
    name = order.record_path
    if name is None:
        return order
    if record_folder is None or Path(name).name != name:
        raise ValueError(
            "over HTTP, record_path is the name of a file in the folder that the server's "
            f"--additional-config names under {ORDER_KEY!r}, record_folder; got {name!r}"
        )
    return msgspec.structs.replace(order, record_path=str(Path(record_folder) / name))


class PendingStep(msgspec.Struct):
    """A scheduled step whose output has not arrived yet.

    `first_tokens` names the requests whose prompt the step completes; the other fields are those
    of `Step`.
    """

    run: "Run"
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
        self.recorded = order.record_path is not None
        self.arrived = 0
        self.ended = 0
        self.start: float | None = None
        self._expected = order.requests
        self._last_arrival = 0.0
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
        return self.arrived >= self._expected

    @property
    def over(self) -> bool:
        """Whether every request has arrived and ended."""
        return self.complete and self.ended >= self.arrived

    @property
    def deserted(self) -> bool:
        """Whether all that have arrived have ended, and others have not even arrived."""
        return not self.complete and self.ended >= self.arrived

    def begin(self, now: float) -> bool:
        """Begin with this moment of the monotonic clock, if the time has come; say whether."""
        if not self.complete:
            if now - self._last_arrival < self.order.patience_s:
                return False
            logger.warning(
                "a run begins with %d of %d requests: no further one has arrived for %g s",
                self.arrived,
                self._expected,
                self.order.patience_s,
            )
            self._expected = self.arrived
        self.start = self._last_done = now
        return True

    def seconds(self, moment: float) -> float:
        """Seconds from the run's first step to this moment of the monotonic clock."""
        return NAN if self.start is None else moment - self.start

    def request_arrived(self, name: str, now: float) -> None:
        """Count a request in."""
        self.arrived += 1
        self._last_arrival = self._arrival[name] = now

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
        if not self.recorded:
            return
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

        A full disk, or the folder of an aborted run that has gone, is no reason for vLLM's core to
        end with all its requests: whoever wants the record misses it and says so.
        """
        if self.order.record_path is None:
            return
        record = RunRecord(self._steps, self._requests, self.controller.history)
        try:
            record.write(Path(self.order.record_path))
        except OSError as error:
            logger.error("the record of a run was not written: %s", error)
