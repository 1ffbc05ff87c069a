"""A run: what its requests order, and the rows recorded until the last of them has ended."""

import logging
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pdswitch.errors import InputError
from pdswitch.plugin.policy import LARGEST_COUNT, Controller, Policy
from pdswitch.plugin.record import RequestRow, RunRecord, Step

if TYPE_CHECKING:
    from vllm.v1.request import Request

ORDER_KEY = "pdswitch"
NAN = float("nan")
# What an order from a client may hold: its text, its record's name, the record's steps.
LONGEST_ORDER = 65_536
RECORD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
MAX_RECORDED_STEPS = 200_000

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
        if not 1 <= self.requests <= LARGEST_COUNT:
            raise InputError(f"requests must be from 1 to {LARGEST_COUNT}, got {self.requests}")
        if not 0 <= self.patience_s < math.inf:
            raise InputError(f"patience_s must be 0 or more and finite, got {self.patience_s}")
        if self.record_path is not None and not _is_path(self.record_path):
            raise InputError(f"record_path is no path: {self.record_path!r:.80}")


class SchedulerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``additional_config["pdswitch"]`` may say.

    Attributes:
        policy: in force while no run is.
        allow_orders: whether clients may order runs, within the limits below.
        max_requests: largest run that a client may order.
        longest_hold_s: how long the requests of a client's run, and new ones of everybody, wait
            for the run's first step at most, counted from the run's first request.
        record_folder: where clients may have records written; None for nowhere.
        trusted: orders come from whoever started the engine: no limit holds, and a record may go
            anywhere. The workflow starts its own engines so; a server must not.
    """

    policy: Policy = Policy()
    allow_orders: bool = False
    max_requests: int = 10_000
    longest_hold_s: float = 60.0
    record_folder: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_requests <= LARGEST_COUNT:
            raise InputError(
                f"max_requests must be from 1 to {LARGEST_COUNT}, got {self.max_requests}"
            )
        if not 0 < self.longest_hold_s < math.inf:
            raise InputError(
                f"longest_hold_s must be above 0 and finite, got {self.longest_hold_s}"
            )


def read_order(value: Any, options: SchedulerOptions) -> RunOrder:
    """Return the order that a request carries.

    Args:
        value: a mapping; or JSON text, as over HTTP, where extra arguments are plain values. A
            stranger may send either.
        options: what the engine was started with.

    Raises:
        InputError: if it is no order, or one that may not be given.
    """
    if not (options.trusted or options.allow_orders):
        raise InputError(
            "this server takes no orders; the request is served without "
            f"extra_args[{ORDER_KEY!r}], or on a server started with allow_orders"
        )
    if isinstance(value, str) and len(value) > LONGEST_ORDER and not options.trusted:
        raise InputError(f"an order has at most {LONGEST_ORDER} characters, got {len(value)}")
    try:
        if isinstance(value, str):
            order = msgspec.json.decode(value, type=RunOrder)
        else:
            order = msgspec.convert(value, type=RunOrder)
    except Exception as error:  # whatever a stranger thinks of ends the request, not the engine
        raise InputError(
            f"extra_args[{ORDER_KEY!r}] is no order of a run: {error!s:.300}"
        ) from error
    return order if options.trusted else _within_limits(order, options)


def _within_limits(order: RunOrder, options: SchedulerOptions) -> RunOrder:
    """Return a client's order, its record in the server's folder.

    Raises:
        InputError: if it asks for more than clients may.
    """
    if order.requests > options.max_requests:
        raise InputError(
            f"a run has at most {options.max_requests} requests on this server (max_requests), "
            f"got {order.requests}"
        )
    name = order.record_path
    if name is None:
        return order
    if options.record_folder is None or not RECORD_NAME.fullmatch(name):
        raise InputError(
            "record_path is the name of a file, of at most 200 letters, digits, dots, dashes and "
            "underscores, in the folder that the server's --additional-config names under "
            f"{ORDER_KEY!r}, record_folder; got {name!r:.80}"
        )
    return msgspec.structs.replace(order, record_path=str(Path(options.record_folder) / name))


def _is_path(text: str) -> bool:
    """Whether the operating system can take this text for a path at all."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


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
    """A run in progress: its order, the requests it has seen, and the rows recorded so far.

    Args:
        order: what it is to be.
        n_slots: N.
        longest_hold_s: it begins so long after its first request at the latest, complete or not.
        max_steps: steps that its record may have.

    Raises:
        InputError: if the policy does not fit into the slots.
    """

    def __init__(
        self,
        order: RunOrder,
        n_slots: int,
        *,
        longest_hold_s: float = math.inf,
        max_steps: float = math.inf,
    ) -> None:
        self.order = order
        self.recorded = order.record_path is not None
        self.controller = Controller(order.policy, n_slots, keeps_history=self.recorded)
        self.arrived = 0
        self.ended = 0
        self.start: float | None = None
        # Requests that carried the order: their client awaits the record.
        self.orderers: set[str] = set()
        self._longest_hold_s, self._max_steps = longest_hold_s, max_steps
        self._expected = order.requests
        self._first_arrival = 0.0
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

    @property
    def too_long(self) -> bool:
        """Whether its record has more steps than it may."""
        return len(self._steps) > self._max_steps

    def excludes(self, order: RunOrder) -> str:
        """Return why a request with this order can neither join nor end the run; empty if it can.

        An order that replaced a run before its first step would hold everybody's requests anew.
        """
        if order != self.order:
            if self.start is None:
                return "another run waits for its first step"
            if self.recorded:
                return "another order would spoil the record of the run in progress"
        elif self.recorded and self.arrived >= order.requests:
            return "the run has all its requests"
        return ""

    def begin(self, now: float) -> bool:
        """Begin with this moment of the monotonic clock, if the time has come; say whether."""
        if not self.complete:
            waited, held = now - self._last_arrival, now - self._first_arrival
            if waited < self.order.patience_s and held < self._longest_hold_s:
                return False
            logger.warning(
                "a run begins with %d of %d requests: the first one has waited %.1f s, and no "
                "further one has arrived for %.1f s",
                self.arrived,
                self._expected,
                held,
                waited,
            )
            self._expected = self.arrived
        self.start = self._last_done = now
        return True

    def seconds(self, moment: float) -> float:
        """Seconds from the run's first step to this moment of the monotonic clock."""
        return NAN if self.start is None else moment - self.start

    def request_arrived(self, name: str, now: float, *, ordered: bool = False) -> None:
        """Count a request in, and note whether it carried the order."""
        if ordered:
            self.orderers.add(name)
        if not self.arrived:
            self._first_arrival = now
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
            # Without a record a run may go on for months, as its policy's clients come and go.
            del self._arrival[name]
            self.orderers.discard(name)
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
        except (OSError, ValueError) as error:  # the latter for a path that names no file
            logger.error("the record of a run was not written: %s", error)
