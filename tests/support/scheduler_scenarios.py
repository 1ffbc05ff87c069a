"""Things that vLLM does to requests, played on a real engine with `SwitchingScheduler`.

A process of its own, because vLLM must not be built where numba has been imported: the test starts
it with a model and a folder, and reads `results.json` and the records it leaves there. Every
scenario drives vLLM's own `LLMEngine`, its core in the same process, so that what happens between
two steps is known exactly.
"""

import json
import os
import sys
import traceback
from collections import deque
from pathlib import Path
from random import Random
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"

from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.core.sched.interface import PauseState

N_SLOTS = 8
STEP_LIMIT = 3000
FIXED = {"kind": "fixed", "threshold": 3}


class Server:
    """One engine; collects the final outputs of its requests."""

    def __init__(self, model: str, folder: Path, one_step_behind: bool) -> None:
        self.folder = folder
        self.engine = LLM(
            model=model,
            # vLLM admits no more than the second number, whatever its model runner has room for:
            # those are the slots of the policy.
            max_num_seqs=N_SLOTS + 2,
            max_num_active_seqs=N_SLOTS,
            max_model_len=512,
            max_num_batched_tokens=512,
            dtype="float32",
            # 19 blocks of 128 tokens: room for two of them in each slot, not for three.
            num_gpu_blocks_override=20,
            kv_cache_memory_bytes=1 << 28,
            enforce_eager=True,
            enable_prefix_caching=True,
            disable_log_stats=True,
            scheduling_policy="priority",
            additional_config={"pdswitch": {"allow_orders": True, "record_folder": str(folder)}},
            scheduler_cls="pdswitch.scheduler.SwitchingScheduler",
        ).llm_engine
        self.core = self.engine.engine_core.engine_core
        self.scheduler = self.core.scheduler
        if one_step_behind:
            # vLLM's CPU build knows no asynchronous scheduling; its core's loop for it, which
            # schedules a step before the output of the last one is known, works all the same.
            self.core.batch_queue = deque(maxlen=2)
            self.core.batch_queue_size = 2
            self.core.step_fn = self.core.step_with_batch_queue
        self.finished: dict[str, list[dict[str, Any]]] = {}
        self.names: dict[str, str] = {}
        self.texts = 0

    def add(
        self,
        name: str,
        tokens: int = 10,
        *,
        order: Any = None,
        prompt: int = 20,
        priority: int = 0,
        text: int | None = None,
        **sampling: Any,
    ) -> None:
        """Queue a request; an order may be a mapping, or JSON text as over HTTP."""
        params = SamplingParams(
            max_tokens=tokens,
            **({"temperature": 0.0, "ignore_eos": True, "detokenize": False} | sampling),
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=None if order is None else {"pdswitch": order},
        )
        # Another text for every request, so that they answer differently and share no prefix.
        self.texts += 1
        first = self.texts if text is None else 10_000 + text
        ids = [first % 250, first // 250, *((7 * first + 3 * i) % 250 for i in range(2, prompt))]
        request = {"prompt_token_ids": ids}
        self.names[name] = self.engine.add_request(name, request, params, priority=priority)

    def order(self, name: str, requests: int, policy: dict[str, Any] | None = None, **more: Any):
        """An order whose record is kept under this name."""
        fields = {"policy": policy or FIXED, "requests": requests}
        return fields | {"record_path": f"{name}.record"} | more

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            for output in self.engine.step():
                self.finished[output.request_id] = [
                    {"tokens": len(one.token_ids), "text": one.text, "reason": one.finish_reason}
                    for one in output.outputs
                ]

    def serve(self) -> dict[str, Any]:
        """Step until nothing is left, and return the outputs so far."""
        for _ in range(STEP_LIMIT):
            if not self.engine.has_unfinished_requests():
                # One more for what vLLM does with the requests that have ended.
                self.step(2)
                return self.take()
            self.step()
        raise RuntimeError(f"requests are still unfinished after {STEP_LIMIT} steps")

    def take(self) -> dict[str, Any]:
        finished, self.finished, self.names = self.finished, {}, {}
        return finished

    def abort(self, *names: str) -> None:
        self.engine.abort_request([self.names[name] for name in names], internal=True)

    def drop_everything(self) -> None:
        """After a scenario that failed: the next one begins with an empty engine."""
        self.scheduler.set_pause_state(PauseState.UNPAUSED)
        self.engine.abort_request(list(self.engine.output_processor.request_states), internal=True)
        self.scheduler._run = None
        self.step(3)
        self.take()


def aborts(server: Server) -> Any:
    """Two requests that run and two that wait are aborted."""
    for i in range(24):
        server.add(f"r{i}", 5 + i % 11, order=server.order("aborts", 24) if i == 0 else None)
    server.step(6)
    server.abort("r7", "r5", "r20", "r23")
    return server.serve()


def abort_before_the_first_step(server: Server) -> Any:
    """All that have arrived of an incomplete run are aborted; then come others."""
    for i in range(4):
        server.add(f"r{i}", order=server.order("never", 10) if i == 0 else None)
    server.step(3)
    server.abort(*[f"r{i}" for i in range(4)])
    for i in range(4):
        server.add(f"plain{i}")
    return server.serve()


def incomplete_run(server: Server) -> Any:
    """Four of ten requests arrive, and no more."""
    for i in range(4):
        order = server.order("incomplete", 10, patience_s=0.3) if i == 0 else None
        server.add(f"r{i}", order=order)
    server.step(3)
    held = len(server.scheduler.running)
    while not server.scheduler.running:
        server.step()
    return {"held": held, "outputs": server.serve()}


def run_abandoned_midway(server: Server) -> Any:
    """A run is aborted in mid-decode, and the next one ordered at once."""
    for i in range(12):
        server.add(f"a{i}", 30, order=server.order("abandoned", 12) if i == 0 else None)
    server.step(10)
    server.abort(*[f"a{i}" for i in range(12)])
    for i in range(10):
        server.add(f"b{i}", 6, order=server.order("following", 10) if i == 0 else None)
    return server.serve()


def run_replaced_midway(server: Server) -> Any:
    """An order follows one without a record: its run serves the other's requests too."""
    for i in range(6):
        server.add(f"a{i}", 20, order={"policy": FIXED, "requests": 6} if i == 0 else None)
    server.step(5)
    for i in range(10):
        server.add(f"b{i}", 6, order=server.order("replacing", 10) if i == 0 else None)
    return server.serve()


def order_during_a_recorded_run(server: Server) -> Any:
    """A run is ordered while one is in progress whose record somebody awaits."""
    for i in range(6):
        server.add(f"a{i}", 20, order=server.order("undisturbed", 6) if i == 0 else None)
    server.step(5)
    for i in range(4):
        server.add(f"b{i}", 6, order=server.order("disturbing", 4) if i == 0 else None)
    server.add("too_late", 6, order=server.order("undisturbed", 6))
    return server.serve()


def run_among_other_requests(server: Server) -> Any:
    """A run is ordered from a server that others use, before, while it waits, and after."""

    def generated() -> int:
        return sum(request.num_output_tokens for request in server.scheduler.running)

    for i in range(2):
        server.add(f"early{i}", 60)
    server.step(4)
    before = generated()
    for i in range(2):
        server.add(f"mine{i}", 8, order=server.order("among", 3) if i == 0 else None)
    server.step(5)
    meanwhile = generated() - before
    server.add("mine2", 8)
    for i in range(3):
        server.add(f"late{i}", 40)
    return {"meanwhile": meanwhile, "outputs": server.serve()}


def record_cannot_be_written(server: Server) -> Any:
    """A folder lies where the record should go."""
    (server.folder / "in_the_way.record").mkdir()
    server.add("r0", order=server.order("in_the_way", 2))
    server.add("r1")
    return server.serve()


def stop_strings(server: Server) -> Any:
    """All requests end by a stop string, which vLLM finds outside its core."""
    table = {"p_edges": [0.05], "thresholds": [2, 6]}
    policy = {"kind": "adaptive", "threshold": 2, "table": table, "update_interval": 8}
    stop = [chr(letter) for letter in range(33, 127)]
    for i in range(32):
        order = server.order("stop_strings", 32, policy) if i == 0 else None
        server.add(f"r{i}", 200, order=order, stop=stop, detokenize=True)
    return server.serve()


def hang_ups(server: Server) -> Any:
    """Clients hang up: without stop strings, with one that never comes, and before it may count."""
    table = {"p_edges": [0.05], "thresholds": [2, 6]}
    policy = {"kind": "adaptive", "threshold": 2, "table": table, "update_interval": 1}
    order = server.order("hang_ups", 8, policy)
    letters = [chr(letter) for letter in range(33, 127)]
    ways = [{}, {"stop": ["never said"]}, {"stop": letters, "min_tokens": 100}]
    for i in range(6):
        way = ways[i % 3] | {"detokenize": True}
        server.add(f"gone{i}", 200, order=order if i == 0 else None, **way)
    server.add("served0", 30)
    server.add("served1", 30)
    server.step(20)
    server.abort(*[f"gone{i}" for i in range(6)])
    return server.serve()


def parallel_sampling(server: Server) -> Any:
    """n = 4 makes four requests of one, each with the order of the first."""
    options = {"n": 4, "temperature": 1.0, "seed": 1}
    for i in range(4):
        order = server.order("parallel_sampling", 16) if i == 0 else None
        server.add(f"r{i}", 6 + i, order=order, **options)
    return server.serve()


def orders_with_every_request(server: Server) -> Any:
    """Every request carries the same order, as JSON text, as clients over HTTP do."""
    text = json.dumps(server.order("every_request", 20))
    for i in range(20):
        server.add(f"r{i}", 4 + i % 7, order=text)
    return server.serve()


def bad_orders(server: Server) -> Any:
    """Orders that make no sense, between requests that do."""
    server.add("good0", 20)
    server.step(2)
    server.add("no_json", order="junk")
    server.add("no_mapping", order=[1, 2])
    server.add("no_policy", order={"requests": 3})
    server.add("too_large", order={"policy": {"kind": "fixed", "threshold": 9}})
    server.add("no_requests", order={"policy": FIXED, "requests": 0})
    foreign = {"policy": FIXED, "record_path": str(server.folder / "foreign.record")}
    server.add("foreign_path", order=json.dumps(foreign))
    server.add("foreign_path_in_a_mapping", order=foreign)
    server.add("too_many", order={"policy": FIXED, "requests": 1_000_000_000})
    server.add("too_long", order=json.dumps({"policy": FIXED}) + " " * 70_000)
    server.add("wide_window", order={"policy": FIXED | {"window": 2**63}})
    server.add("nul", order={"policy": FIXED, "record_path": "x\0y"})
    server.add("good1", 5)
    return server.serve()


def streaming_input(server: Server) -> Any:
    """A session that would get more input later, under a policy that keeps phases apart."""
    plain = server.scheduler.add_request

    def as_session(request: Any) -> None:
        request.resumable = True
        plain(request)

    server.add("r0", 10, order={"policy": FIXED, "requests": 1})
    server.step(2)
    server.scheduler.add_request = as_session
    server.add("session", 5)
    server.scheduler.add_request = plain
    return server.serve()


def priorities(server: Server) -> Any:
    """The last to come goes first."""
    for i in range(24):
        order = server.order("priorities", 24) if i == 0 else None
        server.add(f"r{i:02d}", 4 + i % 3, order=order, priority=24 - i)
    names = dict(server.names)
    return {"names": names, "outputs": server.serve()}


def pause_new_in_a_chunked_refill(server: Server) -> Any:
    """No new requests are to begin, in the middle of a refill that takes several steps."""
    for i in range(3):
        server.add(f"short{i}", 40, order=server.order("pause_new", 9) if i == 0 else None)
    for i in range(6):
        server.add(f"long{i}", 8, prompt=300)
    # Eight slots, 512 tokens a step: the first refill takes four steps.
    server.step(2)
    server.scheduler.set_pause_state(PauseState.PAUSED_NEW)
    server.step(12)
    server.scheduler.set_pause_state(PauseState.UNPAUSED)
    return server.serve()


def pause_all(server: Server) -> Any:
    """Everything stands still for a while, and for good in the middle of a refill."""
    for i in range(12):
        server.add(f"r{i}", 12, prompt=200, order=server.order("pause_all", 12) if i == 0 else None)
    moments = []
    for _ in range(3):
        server.step(4)
        server.core.pause_scheduler("keep", clear_cache=False)
        server.step(5)
        moments.append(len(server.scheduler.running))
        server.core.resume_scheduler()
    return {"moments": moments, "outputs": server.serve()}


def pause_by_abort(server: Server) -> Any:
    """vLLM's own abort-and-pause, then another run."""
    for i in range(12):
        server.add(f"a{i}", 30, order=server.order("paused_run", 12) if i == 0 else None)
    server.step(6)
    server.core.pause_scheduler("abort", clear_cache=False)
    server.engine.abort_request(list(server.names.values()), internal=True)
    for i in range(10):
        server.add(f"b{i}", 5, order=server.order("run_after_pause", 10) if i == 0 else None)
    server.step(5)
    held = len(server.scheduler.running)
    server.core.resume_scheduler()
    return {"held": held, "outputs": server.serve()}


def preemption_of_all(server: Server) -> Any:
    """vLLM preempts all that run, as it does for new weights."""
    for i in range(12):
        server.add(f"r{i}", 15, order=server.order("preemption", 12) if i == 0 else None)
    server.step(8)
    server.core.reset_prefix_cache(reset_running_requests=True)
    return server.serve()


def preemption_for_want_of_memory(server: Server) -> Any:
    """Outputs outgrow the KV memory."""
    for i in range(12):
        order = server.order("no_memory", 12) if i == 0 else None
        server.add(f"r{i}", 90 + i, prompt=200, order=order)
    return server.serve()


def prefix_cache(server: Server) -> Any:
    """Prompts that vLLM has seen before, for a user who turns prefix caching on."""
    for i in range(20):
        order = server.order("prefix_cache", 20) if i == 0 else None
        server.add(f"r{i}", 5 + i % 4, prompt=140, order=order, text=i % 2)
    return server.serve()


def structured_output(server: Server) -> Any:
    """Every other request has a grammar, which is compiled while it waits."""
    for i in range(24):
        order = server.order("structured", 24) if i == 0 else None
        if i % 2:
            grammar = StructuredOutputsParams(regex=f"[ab]{{{2 + i % 5}}}")
            more = {"structured_outputs": grammar, "detokenize": True, "ignore_eos": False}
        else:
            more = {}
        server.add(f"r{i}", 12, order=order, **more)
    return server.serve()


def grammars_that_take_their_time(server: Server) -> Any:
    """A slot is free and only a request waits whose grammar is not compiled yet."""
    from concurrent.futures import Future

    server.add("r0", 60, order=server.order("slow_grammar", 3, {"kind": "fixed", "threshold": 1}))
    server.add("r1", 60)
    grammar = StructuredOutputsParams(regex="[ab]{3}")
    server.add("slow", 12, structured_outputs=grammar, detokenize=True, ignore_eos=False)
    request = server.scheduler.requests[server.names["slow"]]
    compiled = request.structured_output_request._grammar
    compiled = compiled.result() if isinstance(compiled, Future) else compiled
    request.structured_output_request._grammar = Future()
    server.step(20)
    before = {
        name: server.scheduler.requests[server.names[name]].num_output_tokens
        for name in ("r0", "slow")
    }
    request.structured_output_request._grammar.set_result(compiled)
    server.step(4)
    after = request.num_output_tokens
    return {"before": before, "after": after, "outputs": server.serve()}


def a_guard_beside_a_grammar(server: Server) -> Any:
    """A request that cannot be admitted yet has waited for longer than the guard allows."""
    from concurrent.futures import Future

    policy = {"kind": "fixed", "threshold": 8, "drain": "strict", "max_hold_s": 1000.0}
    server.add("r0", 40, order=server.order("guarded_grammar", 1, policy))
    server.step(3)
    grammar = StructuredOutputsParams(regex="[ab]{3}")
    server.add("slow", 12, structured_outputs=grammar, detokenize=True, ignore_eos=False)
    request = server.scheduler.requests[server.names["slow"]]
    compiled = request.structured_output_request._grammar
    compiled = compiled.result() if isinstance(compiled, Future) else compiled
    request.structured_output_request._grammar = Future()
    server.add("young", 5)
    waiting = server.scheduler._waiting_since
    young = server.scheduler.requests[server.names["young"]]
    waiting[request.request_id] -= 2000.0
    server.step(5)
    held = young.num_output_tokens
    waiting[young.request_id] -= 2000.0
    server.step(3)
    served = young.num_output_tokens
    request.structured_output_request._grammar.set_result(compiled)
    return {"held": held, "served": served, "outputs": server.serve()}


def refusals(server: Server) -> Any:
    """The sentences with which vLLM configurations are refused at start."""
    from copy import copy

    from pdswitch.plugin.compatibility import read_options

    def sentence(part: str | None, **changes: Any) -> str:
        config = copy(server.engine.vllm_config)
        changed = config if part is None else copy(getattr(config, part))
        for name, value in changes.items():
            object.__setattr__(changed, name, value)
        if part is not None:
            object.__setattr__(config, part, changed)
        try:
            read_options(config)
        except ValueError as error:
            return str(error)
        return "accepted"

    too_high = {"pdswitch": {"policy": {"kind": "fixed", "threshold": N_SLOTS + 1}}}
    return {
        "nothing": sentence(None),
        "setting": sentence(None, additional_config={"pdswitch": {"polcy": {}}}),
        "slots": sentence(None, additional_config=too_high),
        "pipeline": sentence("parallel_config", pipeline_parallel_size=2),
        "speculative": sentence(None, speculative_config=object()),
        "kv_transfer": sentence(None, kv_transfer_config=object()),
        "ec_transfer": sentence(None, ec_transfer_config=object()),
        "lora": sentence(None, lora_config=object()),
        "pooling": sentence("model_config", runner_type="pooling"),
        "interval": sentence("scheduler_config", prefill_schedule_interval=4),
    }


def equal_lengths(server: Server) -> Any:
    """All that run end in one step, so that under async scheduling the next one has no work."""
    policy = {"kind": "fixed", "threshold": N_SLOTS}
    for i in range(24):
        server.add(f"r{i}", 5, order=server.order("equal", 24, policy) if i == 0 else None)
    return server.serve()


def random_workloads(server: Server) -> Any:
    """Runs of every policy, size and shape; some of them lose requests on the way."""
    runs = {}
    for seed in range(24):
        random = Random(seed)
        threshold = random.randint(1, N_SLOTS)
        policy = {
            "kind": random.choice(["fixed", "adaptive"]),
            "threshold": threshold,
            "drain": random.choice(["eager", "strict"]),
            "max_hold_s": random.choice([None, None, 0.05]),
            "update_interval": 4,
            "estimator": random.choice(["ema_length", "window", "completions_per_token"]),
            "table": {"p_edges": [0.1], "thresholds": [threshold, random.randint(1, N_SLOTS)]},
        }
        count, longest = random.randint(1, 40), random.choice([1, 5, 50])
        lengths = [random.randint(1, longest) for _ in range(count)]
        for i, length in enumerate(lengths):
            order = server.order(f"random{seed}", count, policy) if i == 0 else None
            server.add(f"r{i}", length, prompt=random.randint(2, 200), order=order)
        aborted = []
        if seed % 3 == 2:
            server.step(random.randint(0, 20))
            left = [name for name in server.names if name not in server.finished]
            aborted = random.sample(left, random.randint(0, len(left)))
            server.abort(*aborted)
        runs[f"random{seed}"] = {
            "policy": policy,
            "lengths": {f"r{i}": [length] for i, length in enumerate(lengths)},
            "aborted": aborted,
            "outputs": server.serve(),
        }
    return runs


SCENARIOS = [
    aborts,
    abort_before_the_first_step,
    incomplete_run,
    run_abandoned_midway,
    run_replaced_midway,
    order_during_a_recorded_run,
    run_among_other_requests,
    record_cannot_be_written,
    stop_strings,
    hang_ups,
    parallel_sampling,
    orders_with_every_request,
    bad_orders,
    streaming_input,
    priorities,
    pause_new_in_a_chunked_refill,
    pause_all,
    pause_by_abort,
    preemption_of_all,
    preemption_for_want_of_memory,
    prefix_cache,
    structured_output,
    grammars_that_take_their_time,
    a_guard_beside_a_grammar,
    equal_lengths,
    random_workloads,
    refusals,
]


def main() -> None:
    model, folder, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    wanted = set(sys.argv[4:])
    server = Server(model, folder, mode == "one-step-behind")
    results: dict[str, Any] = {}
    for scenario in SCENARIOS:
        if wanted and scenario.__name__ not in wanted:
            continue
        try:
            results[scenario.__name__] = {"result": scenario(server)}
        except Exception:
            results[scenario.__name__] = {"error": traceback.format_exc()}
            server.drop_everything()
        print(scenario.__name__, list(results[scenario.__name__]), flush=True)
        (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
