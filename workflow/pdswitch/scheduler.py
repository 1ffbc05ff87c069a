"""vLLM scheduler that separates decode from prefill and switches at k free slots.

Load it with ``scheduler_cls="pdswitch.scheduler.SwitchingScheduler"``. Nothing of vLLM is patched:
the policy decides, before every step, what vLLM's own `schedule()` may do in it.

* Decode step: new requests are held back by vLLM's pause state ``PAUSED_NEW``.
* Refill step: decoding requests are frozen by `next_decode_eligible_step`, and admissions are
  capped at the slots that were free when the refill began.

vLLM's scheduler interface is not public. What is used of it beyond the overridden methods:
`running`, `get_request_counts`, `_pause_state`, `current_step`, `next_decode_eligible_step`,
`is_prefill_chunk` and the admission limit; `tests/test_scheduler.py` says what broke.
"""

import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

import msgspec
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState

from pdswitch.policy import Controller, Policy
from pdswitch.run import ORDER_KEY, PendingStep, Run, RunOrder, read_order

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

__all__ = ["ORDER_KEY", "RunOrder", "SwitchingScheduler", "refuse_unsupported"]


class SwitchingScheduler(AsyncScheduler):
    """vLLM's scheduler under the policies ``mixed``, ``fixed`` and ``adaptive``.

    The policy in force comes with a `RunOrder`; before the first one it is
    ``additional_config["pdswitch"]["policy"]``, or ``mixed``.

    Raises:
        ValueError: at start, for a vLLM configuration under which phases cannot be kept apart.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_unsupported(self.vllm_config)
        options = (self.vllm_config.additional_config or {}).get(ORDER_KEY, {})
        self._n_slots: int = self.max_num_running_reqs
        self._default = Controller(
            msgspec.convert(options.get("policy", {}), type=Policy), self._n_slots
        )
        self._run: Run | None = None
        self._pending: deque[PendingStep] = deque()
        # Requests whose prompt is only partly computed.
        self._prefilling: set[str] = set()
        # Slots the refill under way may still fill.
        self._refill_left = 0
        # The last refill found no KV memory: decode until a completion frees some.
        self._starved = False
        # Since when each request without a slot has waited, the oldest first.
        self._waiting_since: OrderedDict[str, float] = OrderedDict()
        self._preempted = 0
        self._done = 0.0
        # vLLM 0.32 split the admission limit from the number of slots.
        self._limit = (
            "max_num_active_reqs"
            if hasattr(self, "max_num_active_reqs")
            else "max_num_running_reqs"
        )

    # -- what may happen in a step ------------------------------------------------------------

    def schedule(self, *args: Any, **kwargs: Any) -> "SchedulerOutput":
        """Schedule one step under the policy in force."""
        run, controller = self._run, self._controller
        held = sum(request.num_computed_tokens for request in self.running)
        cause = ""
        if run is not None and run.complete and run.start is None:
            run.begin(time.monotonic())
        if run is not None and not run.complete:
            output = self._schedule_paused(PauseState.PAUSED_ALL, *args, **kwargs)
        elif controller.policy.kind == "mixed" or self._pause_state != PauseState.UNPAUSED:
            output = super().schedule(*args, **kwargs)
        elif cause := self._refill_cause(controller):
            output = self._schedule_refill(*args, **kwargs)
        else:
            output = self._schedule_paused(PauseState.PAUSED_NEW, *args, **kwargs)
        self._note_scheduled(output, run, controller, held, cause)
        return output

    @property
    def _controller(self) -> Controller:
        return self._default if self._run is None else self._run.controller

    def _refill_cause(self, controller: Controller) -> str:
        """Go on with the refill under way, or begin one if it is due; empty for a decode step."""
        running, waiting = self.get_request_counts()
        if self._prefilling or (self._refill_left and waiting):
            return "continued"
        if self._starved and running:
            return ""
        free = self._n_slots - running
        cause = controller.policy.refill_cause(
            controller.threshold, free, waiting, running, self._longest_wait()
        )
        if cause is None:
            return ""
        self._refill_left = min(free, waiting)
        return cause

    def _longest_wait(self) -> float:
        """Return how long the oldest request without a slot has waited, s."""
        for since in self._waiting_since.values():
            return time.monotonic() - since
        return 0.0

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

    # -- runs ---------------------------------------------------------------------------------

    def add_request(self, request: "Request") -> None:
        """Queue a request; one that carries a `RunOrder` begins a run."""
        extra = (request.sampling_params and request.sampling_params.extra_args) or {}
        if ORDER_KEY in extra:
            self._run = Run(read_order(extra[ORDER_KEY]), self._n_slots)
        now = time.monotonic()
        if self._run is not None:
            self._run.request_arrived(request.request_id, now)
        self._waiting_since[request.request_id] = now
        super().add_request(request)

    def _free_request(self, request: "Request", *args: Any, **kwargs: Any) -> Any:
        self._prefilling.discard(request.request_id)
        self._waiting_since.pop(request.request_id, None)
        self._starved = False
        run = self._run
        if run is not None and request.request_id in run:
            run.request_ended(request, self._done)
            self._note_completed(run.controller, request, run.seconds(self._done))
        else:
            self._note_completed(self._default, request, self._done)
        return super()._free_request(request, *args, **kwargs)

    def _note_completed(self, controller: Controller, request: "Request", time_s: float) -> None:
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

    def _preempt_request(self, request: "Request", *args: Any, **kwargs: Any) -> None:
        self._prefilling.discard(request.request_id)
        self._waiting_since[request.request_id] = time.monotonic()
        self._preempted += 1
        super()._preempt_request(request, *args, **kwargs)

    # -- the record ---------------------------------------------------------------------------

    def _note_scheduled(
        self,
        output: "SchedulerOutput",
        run: Run | None,
        controller: Controller,
        held: int,
        cause: str,
    ) -> None:
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
        running, waiting = self.get_request_counts()
        now = time.monotonic()
        if run is not None and run.start is not None:
            for request in new:
                run.request_admitted(request.req_id, now)
        blocks = self.kv_cache_config.num_blocks
        self._pending.append(
            PendingStep(
                run=run if run is not None and run.start is not None else None,
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
                preempted=self._preempted,
                cached_tokens=sum(request.num_computed_tokens for request in new),
                refill_cause=cause,
                first_tokens=[name for name in prefills if name not in unfinished],
            )
        )
        self._preempted = 0

    def update_from_output(
        self, scheduler_output: "SchedulerOutput", model_runner_output: "ModelRunnerOutput"
    ) -> Any:
        """Take in a step's output, record the step, and close the run with its last request."""
        self._done = time.monotonic()
        # vLLM returns every scheduled step, empty ones too, in the order of scheduling.
        pending = self._pending.popleft()
        run = pending.run
        if run is None or run is not self._run:
            return super().update_from_output(scheduler_output, model_runner_output)
        run.first_tokens(pending.first_tokens, self._done)
        ended_before = run.ended
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        run.step_done(pending, self._done, run.ended - ended_before)
        if run.over:
            run.write()
            self._run = None
        return outputs


def _admitted(output: "SchedulerOutput") -> int:
    return len(output.scheduled_new_reqs) + len(output.scheduled_cached_reqs.resumed_req_ids)


def refuse_unsupported(config: "VllmConfig") -> None:
    """Refuse a vLLM configuration under which prefill and decode cannot be kept apart.

    Raises:
        ValueError: naming the setting and what to do.
    """
    if config.speculative_config is not None:
        raise ValueError(
            "SwitchingScheduler cannot keep phases apart under speculative decoding; "
            "remove speculative_config"
        )
    if config.parallel_config.pipeline_parallel_size > 1:
        raise ValueError(
            "SwitchingScheduler cannot freeze decodes under pipeline parallelism; "
            "set pipeline_parallel_size=1 and use tensor_parallel_size"
        )
    if config.kv_transfer_config is not None:
        raise ValueError(
            "SwitchingScheduler does not know requests whose KV cache comes from elsewhere; "
            "remove kv_transfer_config"
        )
