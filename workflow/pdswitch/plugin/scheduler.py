"""vLLM scheduler that separates decode from prefill and switches at k free slots.

Load it with ``scheduler_cls="pdswitch.scheduler.SwitchingScheduler"``. Nothing of vLLM is patched:
the policy decides, before every step, what vLLM's own `schedule()` may do in it.

* Decode step: new requests are held back by vLLM's pause state ``PAUSED_NEW``.
* Refill step: decoding requests are frozen by `next_decode_eligible_step`, and admissions are
  capped at the slots that were free when the refill began.

vLLM's scheduler interface is not public. What is used of it beyond the overridden methods:
`running`, `waiting`, `requests`, `get_request_counts`, `finish_requests`, `_pause_state`,
`current_step`, `next_decode_eligible_step`, `is_prefill_chunk`, `num_stale_output_tokens`, the KV
cache's count of the blocks that a request needs, the detokenizer and the admission limit;
`tests/plugin/test_scheduler.py` says what broke.
"""

import logging
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vllm
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.request import RequestStatus

from pdswitch.errors import InputError
from pdswitch.plugin.compatibility import read_options, slots_of, warn_of_untried_version
from pdswitch.plugin.policy import Controller
from pdswitch.plugin.run import (
    MAX_RECORDED_STEPS,
    ORDER_KEY,
    PendingStep,
    Run,
    RunOrder,
    read_order,
)

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

__all__ = ["ORDER_KEY", "RunOrder", "SwitchingScheduler"]

logger = logging.getLogger(__name__)


class SwitchingScheduler(AsyncScheduler):
    """vLLM's scheduler under the policies ``mixed``, ``fixed`` and ``adaptive``.

    The policy in force comes with a `RunOrder`; while no run is in progress it is that of
    ``additional_config["pdswitch"]`` (`SchedulerOptions`), or ``mixed``.

    Raises:
        InputError: at start, for a vLLM configuration under which phases cannot be kept apart.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options = options = read_options(self.vllm_config)
        if options.record_folder is not None and not Path(options.record_folder).is_dir():
            raise InputError(
                f"--additional-config: {ORDER_KEY}: record_folder {options.record_folder!r} is no "
                "folder; make it, or leave it out"
            )
        warn_of_untried_version(vllm.__version__)
        # vLLM 0.32 split the admission limit from the number of sequences in a step.
        self._limit = (
            "max_num_active_reqs"
            if hasattr(self, "max_num_active_reqs")
            else "max_num_running_reqs"
        )
        self._n_slots = slots_of(self.vllm_config)
        self._default = Controller(options.policy, self._n_slots, keeps_history=False)
        self._run: Run | None = None
        # One entry per step whose output has not arrived; None where nothing is recorded.
        self._pending: deque[PendingStep | None] = deque()
        # Requests whose prompt is only partly computed.
        self._prefilling: set[str] = set()
        # Slots the refill under way may still fill.
        self._refill_left = 0
        # The last refill found no KV memory: decode until a completion frees some.
        self._starved = False
        # Since when each request without a slot has waited, the oldest first.
        self._waiting_since: OrderedDict[str, float] = OrderedDict()
        # Those of them that could not be admitted yet, when last looked at.
        self._blocked: dict[str, Request] = {}
        # Requests with an invalid order, and those still to be answered with an error.
        self._refused: list[Request] = []
        self._refusals: list[Request] = []
        self._preempted = 0
        self._done = 0.0

    # -- what may happen in a step ------------------------------------------------------------

    def schedule(self, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        """Schedule one step under the policy in force."""
        if self._refused:
            self._finish_refused()
        run, controller = self._run, self._controller
        held = _tokens_held(self.running) if run is not None and run.recorded else 0
        cause = ""
        if self._pause_state == PauseState.PAUSED_ALL:
            output = super().schedule(*args, **kwargs)
        elif run is not None and run.start is None and not self._begins(run):
            # The run has not begun: decode what is in slots, admit nothing.
            output = self._schedule_paused(PauseState.PAUSED_NEW, *args, **kwargs)
        elif controller.policy.kind == "mixed":
            output = super().schedule(*args, **kwargs)
        elif cause := self._refill_cause(controller):
            output = self._schedule_refill(*args, **kwargs)
        else:
            output = self._schedule_paused(PauseState.PAUSED_NEW, *args, **kwargs)
        self._note_scheduled(output, run, controller, held, cause)
        return output

    def _begins(self, run: Run) -> bool:
        return self._pause_state == PauseState.UNPAUSED and run.begin(time.monotonic())

    @property
    def _controller(self) -> Controller:
        return self._default if self._run is None else self._run.controller

    def _refill_cause(self, controller: Controller) -> str:
        """Go on with the refill under way, or begin one if it is due; empty for a decode step."""
        # A prompt that has been begun is finished apart from decodes, paused or not.
        if self._prefilling:
            return "continued"
        if self._pause_state != PauseState.UNPAUSED:
            return ""
        running, waiting = self.get_request_counts()
        if self._blocked:
            waiting -= self._count_blocked()
        if self._refill_left and waiting:
            return "continued"
        if self._starved and running:
            return ""
        free, waited = self._n_slots - running, self._longest_wait()
        decide = controller.policy.refill_cause
        cause = decide(controller.threshold, free, waiting, running, waited)
        wanted = min(free, waiting)
        if cause is not None and (fitting := self._count_fitting(wanted)) < wanted:
            # A slot that memory cannot fill is not free. An idle engine lets vLLM try.
            wanted = free = fitting if running else max(1, fitting)
            cause = decide(controller.threshold, free, waiting, running, waited)
        self._refill_left = wanted if cause else 0
        return cause or ""

    def _count_fitting(self, most: int) -> int:
        """Count the next waiting requests whose prompts fit into free KV memory together.

        Args:
            most: where to stop counting.
        """
        manager = self.kv_cache_manager
        if manager.enable_caching:
            # What a prompt shares with others is known only when vLLM admits it.
            return most
        left = manager.block_pool.get_num_free_blocks() - manager.watermark_blocks
        fitting = 0
        for request in self.waiting:
            if fitting == most:
                break
            if request.request_id in self._blocked:
                continue
            tokens = min(request.num_tokens, self.max_model_len)
            left -= manager.coordinator.get_num_blocks_to_allocate(
                request_id=request.request_id,
                num_tokens=tokens,
                new_computed_blocks=manager.empty_kv_cache_blocks.blocks,
                num_encoder_tokens=0,
                total_computed_tokens=0,
                num_local_computed_tokens=0,
                num_tokens_main_model=tokens,
                apply_admission_cap=True,
            )
            if left < 0:
                break
            fitting += 1
        return fitting

    def _longest_wait(self) -> float:
        """Return how long the oldest request that could be admitted has waited, s."""
        for name, since in self._waiting_since.items():
            if name not in self._blocked:
                return time.monotonic() - since
        return 0.0

    def _count_blocked(self) -> int:
        """Count the waiting requests that vLLM would pass over in this step."""
        self._blocked = {
            name: request for name, request in self._blocked.items() if _is_blocked(request)
        }
        return len(self._blocked)

    def _schedule_refill(self, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        for request in self.running:
            if request.request_id not in self._prefilling:
                # schedule() counts current_step up before it compares.
                request.next_decode_eligible_step = self.current_step + 2
        limit = getattr(self, self._limit)
        setattr(self, self._limit, min(limit, len(self.running) + self._refill_left))
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            setattr(self, self._limit, limit)
        admitted = _admitted(output)
        self._refill_left -= admitted
        if not admitted and not self._prefilling:
            self._refill_left = 0
            self._starved = True
        return output

    def _schedule_paused(self, state: PauseState, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        # The attribute, not set_pause_state(): that one logs, and this happens every step.
        self._refill_left = 0
        self._pause_state, before = state, self._pause_state
        try:
            return super().schedule(*args, **kwargs)
        finally:
            self._pause_state = before

    # -- requests and runs --------------------------------------------------------------------

    def add_request(self, request: "Request") -> None:
        """Queue a request; one that carries a `RunOrder` begins a run, or joins the one it orders.

        A bad order ends its own request with an error: raising here would end vLLM's core.
        """
        if request.request_id in self.requests:
            # More input for a session; see `_take_order`.
            super().add_request(request)
            return
        now = time.monotonic()
        if self._run is not None and self._run.over:
            # All of it was aborted, and no step has followed yet.
            self._close_run(self._run)
        try:
            ordered = self._take_order(request)
        except ValueError as error:
            logger.error("request %s is refused: %s", request.request_id, error)
            self._refused.append(request)
        else:
            # Once a run is complete, requests without its order are other people's.
            if self._run is not None and (ordered or not self._run.complete):
                self._run.request_arrived(request.request_id, now, ordered=ordered)
        self._waiting_since[request.request_id] = now
        super().add_request(request)
        if _is_blocked(request):
            self._blocked[request.request_id] = request

    def _take_order(self, request: "Request") -> bool:
        """Begin or join the run that a request orders; say whether it orders one."""
        extra = request.sampling_params and request.sampling_params.extra_args
        ordered = isinstance(extra, dict) and ORDER_KEY in extra
        if ordered:
            order = read_order(extra[ORDER_KEY], self._options)
            if self._run is not None and (reason := self._run.excludes(order)):
                raise InputError(f"{reason}; order again later")
            if self._run is None or self._run.order != order:
                self._run = self._new_run(order)
        if getattr(request, "resumable", False) and self._controller.policy.kind != "mixed":
            raise InputError(
                "vLLM prefills the later input of a streaming session beside decodes; "
                "send it under the policy mixed"
            )
        return ordered

    def _new_run(self, order: RunOrder) -> Run:
        if self._options.trusted:
            return Run(order, self._n_slots)
        return Run(
            order,
            self._n_slots,
            longest_hold_s=self._options.longest_hold_s,
            max_steps=MAX_RECORDED_STEPS,
        )

    def _finish_refused(self) -> None:
        refused, self._refused = self._refused, []
        alive = [request for request in refused if request.request_id in self.requests]
        self.finish_requests([one.request_id for one in alive], RequestStatus.FINISHED_ERROR)
        self._refusals += alive

    def _free_request(self, request: "Request", *args: Any, **kwargs: Any) -> Any:
        name, run = request.request_id, self._run
        self._prefilling.discard(name)
        self._waiting_since.pop(name, None)
        self._blocked.pop(name, None)
        self._starved = False
        if run is not None and name in run:
            run.request_ended(request, self._done)
            self._tell(run.controller, request, run.seconds(self._done))
            if run.deserted:
                logger.warning("a run is given up: its requests ended before the others arrived")
                self._run = None
        else:
            self._tell(self._default, request, self._done)
        return super()._free_request(request, *args, **kwargs)

    def _tell(self, controller: Controller, request: "Request", time_s: float) -> None:
        """Tell an adaptive controller of one of its requests that ended."""
        if controller.policy.kind != "adaptive":
            return
        if not self._ended_by_itself(request):
            controller.aborted(request.num_output_tokens)
            return
        run = self._run

        def tokens_in_progress() -> int:
            # The controller's own requests: those of the run, or those outside it.
            own = controller is not self._default
            return sum(
                other.num_output_tokens
                for name, other in self.requests.items()
                if other is not request and own == (run is not None and name in run)
            )

        controller.completed(request.num_output_tokens, time_s, tokens_in_progress)

    def _ended_by_itself(self, request: "Request") -> bool:
        """Whether the end of this request says something of the lengths.

        vLLM finds stop strings outside its core, which sees the request aborted, as if its client
        had hung up. So the core looks for the stop string itself.
        """
        if request.status != RequestStatus.FINISHED_ABORTED:
            return request.status != RequestStatus.FINISHED_ERROR
        if not (request.sampling_params and request.sampling_params.stop):
            return False
        tokenizer = getattr(self.structured_output_manager, "tokenizer", None)
        try:
            text = IncrementalDetokenizer.from_new_request(tokenizer, request)
            return text.update(list(request.output_token_ids), False) is not None
        except Exception:  # of the tokenizer: it costs one observation, and must not end the core
            logger.exception("the answer of request %s cannot be read", request.request_id)
            return False

    def _preempt_request(self, request: "Request", *args: Any, **kwargs: Any) -> None:
        name = request.request_id
        self._prefilling.discard(name)
        self._waiting_since[name] = time.monotonic()
        self._preempted += 1
        super()._preempt_request(request, *args, **kwargs)
        if _is_blocked(request):
            self._blocked[name] = request

    def _close_run(self, run: Run) -> None:
        run.write()
        self._run = None

    def _give_up(self, run: Run) -> None:
        """End a run whose record grew too long, and those of its requests that await it."""
        logger.error(
            "a run of %d requests is given up: its record has more than %d steps",
            run.arrived,
            MAX_RECORDED_STEPS,
        )
        self._refused += [self.requests[name] for name in run.orderers & self.requests.keys()]
        self._run = None

    # -- the record ---------------------------------------------------------------------------

    def _note_scheduled(
        self,
        output: "SchedulerOutput",
        run: Run | None,
        controller: Controller,
        held: int,
        cause: str,
    ) -> None:
        """Follow what vLLM scheduled, and begin the step's row of the record.

        Args:
            output: of vLLM's scheduler.
            run: in progress when the step was scheduled.
            controller: in force in the step.
            held: KV tokens of the requests in slots before the step.
            cause: of the refill, empty for a decode step.
        """
        scheduled = output.num_scheduled_tokens
        new = output.scheduled_new_reqs
        prefills = {request.req_id for request in new}
        prefills |= output.scheduled_cached_reqs.resumed_req_ids
        admitted = len(prefills)
        for name in prefills:
            self._waiting_since.pop(name, None)
        prefills |= self._prefilling & scheduled.keys()
        unfinished = {name for name in prefills if self.requests[name].is_prefill_chunk}
        self._prefilling = (self._prefilling - prefills) | unfinished
        preempted, self._preempted = self._preempted, 0
        if run is None or run.start is None or not run.recorded:
            self._pending.append(None)
            return
        running, waiting = self.get_request_counts()
        now = time.monotonic()
        for request in new:
            run.request_admitted(request.req_id, now)
        blocks = self.kv_cache_config.num_blocks
        self._pending.append(
            PendingStep(
                run=run,
                scheduled=now,
                prefill_requests=len(prefills),
                prefill_tokens=sum(scheduled[name] for name in prefills),
                admitted=admitted,
                decode_requests=len(scheduled) - len(prefills),
                context_tokens=held,
                running=running,
                waiting=waiting,
                threshold=controller.threshold,
                kv_blocks=round(self.kv_cache_manager.usage * blocks),
                preempted=preempted,
                cached_tokens=sum(request.num_computed_tokens for request in new),
                refill_cause=cause,
                first_tokens=[name for name in prefills if name not in unfinished],
            )
        )

    def update_from_output(
        self, scheduler_output: "SchedulerOutput", model_runner_output: "ModelRunnerOutput"
    ) -> Any:
        """Take in a step's output, record the step, and close the run with its last request."""
        self._done = time.monotonic()
        # vLLM returns every scheduled step, empty ones too, in the order of scheduling.
        pending, run = self._pending.popleft(), self._run
        if pending is not None and pending.run is run:
            run.first_tokens(pending.first_tokens, self._done)
            ended_before = run.ended
            outputs = super().update_from_output(scheduler_output, model_runner_output)
            run.step_done(pending, self._done, run.ended - ended_before)
        else:
            outputs = super().update_from_output(scheduler_output, model_runner_output)
        if run is not None and run is self._run:
            if run.over:
                self._close_run(run)
            elif run.too_long:
                self._give_up(run)
        for request in self._refusals:
            _answer_with_error(outputs, request)
        self._refusals = []
        return outputs


def _tokens_held(running: list["Request"]) -> int:
    return sum(request.num_computed_tokens for request in running)


def _admitted(output: "SchedulerOutput") -> int:
    return len(output.scheduled_new_reqs) + len(output.scheduled_cached_reqs.resumed_req_ids)


def _is_blocked(request: "Request") -> bool:
    """Whether vLLM would pass over this waiting request in the next step.

    It does so while its grammar is being compiled, and, where newer versions of vLLM preempt under
    asynchronous scheduling, until its last output has come.
    """
    if request.use_structured_output and request.structured_output_request.grammar is None:
        return True
    return getattr(request, "num_stale_output_tokens", 0) > 0


def _answer_with_error(outputs: dict[int, EngineCoreOutputs], request: "Request") -> None:
    answer = EngineCoreOutput(
        request_id=request.request_id, new_token_ids=[], finish_reason=request.get_finished_reason()
    )
    of_client = outputs.setdefault(request.client_index, EngineCoreOutputs())
    of_client.outputs = [*of_client.outputs, answer]
