"""The one module that drives vLLM: builds the engine of a spec and serves runs on it."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from pdswitch.engine.cores import asked_of_workers, take_cores
from pdswitch.engine.environment import published
from pdswitch.engine.hardware import Hardware, load_nvml
from pdswitch.engine.protocol import (
    Notice,
    Output,
    Progress,
    Report,
    Request,
    RunCommand,
    RunResult,
)
from pdswitch.engine.self_check import SETTLING_STEPS, STEPS, VALID_COSTS, VALID_S, judge
from pdswitch.engine.spec import EngineSpec
from pdswitch.engine.worker import EXTENSION
from pdswitch.errors import InputError
from pdswitch.plugin.policy import Controller, Policy
from pdswitch.plugin.record import RunRecord
from pdswitch.plugin.run import ORDER_KEY

SCHEDULER = "pdswitch.plugin.scheduler.SwitchingScheduler"
PROGRESS_INTERVAL_S = 0.2
WARMUP_PROMPT_TOKENS = 64
WARMUP_OUTPUT_TOKENS = 8
CHECK_PROMPT_TOKENS = 16
# Sampling options that a run has no use for, with the values that leave them off.
NOT_FOR_RUNS: dict[str, Any] = {"n": 1, "logprobs": None, "prompt_logprobs": None}


class VllmEngine:
    """vLLM with `SwitchingScheduler`, as one spec wants it.

    Args:
        spec: what to build.
        say: takes one line about what start-up is doing.
    """

    def __init__(self, spec: EngineSpec, say: Callable[[str], None]) -> None:
        started = time.monotonic()
        self._variables = published(os.environ)
        prepare_process(spec)
        say("importing vLLM")
        from vllm import LLM

        self.spec = spec
        cuda = spec.device == "cuda"
        self._hardware = Hardware(
            load_nvml() if cuda else None, spec.visible_devices, spec.tensor_parallel_size
        )
        say(f"loading {spec.model}")
        self._engine = LLM(**llm_arguments(spec)).llm_engine
        say(f"warming up with a full wave of {spec.n_slots} requests")
        self._warm_up()
        self._workers = self._engine.collective_rpc("worker_facts")
        memories = self._engine.collective_rpc("memory_facts")
        # The one with the largest share of the weights leaves the least for KV cache.
        self._memory = max(memories, key=lambda memory: memory["weight_bytes"] or 0)
        if spec.threads is not None and asked_of_workers(spec)["cores"] is None:
            # vLLM binds each thread by itself: the cores of one say nothing of the worker's.
            self._workers = [worker | {"cores": None} for worker in self._workers]
        self._check: dict[str, Any] = {}
        self._check_valid_until_s = float("-inf")
        self.load_s = time.monotonic() - started

    def _warm_up(self) -> None:
        prompt_tokens = min(WARMUP_PROMPT_TOKENS, self.spec.max_model_len // 2)
        outputs = min(WARMUP_OUTPUT_TOKENS, self.spec.max_model_len - prompt_tokens)
        wave = [
            Request(f"warm-up-{i}", [100 + i] * prompt_tokens, outputs, True)
            for i in range(2 * self.spec.n_slots)
        ]
        policy = Policy(kind="fixed", threshold=self.spec.n_slots)
        self.run(RunCommand(policy, wave, {"temperature": 0.0}), lambda _: None)

    def describe(self) -> dict[str, Any]:
        """Return facts about the running engine for the results."""
        import torch
        import vllm

        config = self._engine.vllm_config
        cuda = self.spec.device == "cuda"
        return {
            "key": self.spec.key(),
            "pid": os.getpid(),
            "model": self.spec.model,
            "model_digest": self.spec.model_digest,
            "n_slots": self.spec.n_slots,
            "vllm": vllm.__version__,
            "torch": str(torch.__version__),
            "python": sys.version.split()[0],
            "device": torch.cuda.get_device_name(0) if cuda else "cpu",
            "cuda": torch.version.cuda if cuda else None,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "max_model_len": config.model_config.max_model_len,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "num_kv_blocks": config.cache_config.num_gpu_blocks,
            "block_size": config.cache_config.block_size,
            "cuda_graph_sizes": list(config.compilation_config.cudagraph_capture_sizes or []),
            "enforce_eager": self.spec.enforce_eager,
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "separate_core": self.spec.separate_core,
            "seed": self.spec.seed,
            "vllm_options": self.spec.vllm_options,
            "source_digest": self.spec.source_digest,
            # What was asked for, and what its processes are: `analysis.validity` compares them.
            "asked": {
                "environment": published(self.spec.environment),
                **asked_of_workers(self.spec),
            },
            "environment": self._variables,
            "workers": self._workers,
            "memory": self._memory,
            "hardware": self._hardware.identity(),
            "load_s": round(self.load_s, 2),
        }

    def self_check(self, report: Callable[[Report], None]) -> dict[str, Any]:
        """Return what `judge` says of equal decode steps, as long as it is valid.

        Args:
            report: called as in `run`, and with a sentence if the machine is not quiet.
        """
        started = time.monotonic()
        if started > self._check_valid_until_s:
            sizes = sorted({1, self.spec.n_slots})
            durations = {size: self._decode_steps(size, report) for size in sizes}
            found = judge(
                durations, self._hardware.conditions(), self._workers, os.cpu_count() or 1
            )
            self._check = {"checked_at": datetime.now(UTC).isoformat(), **found}
            ended = time.monotonic()
            self._check_valid_until_s = ended + max(VALID_S, VALID_COSTS * (ended - started))
            if found["warnings"]:
                report(
                    Notice(
                        f"the machine is not quiet: {'; '.join(found['warnings'])}; likely cause: "
                        f"{found['likely_cause']}"
                    )
                )
        return self._check

    def _decode_steps(self, size: int, report: Callable[[Report], None]) -> list[float]:
        """Return the times of decode steps with so many requests, s."""
        prompt_tokens = min(CHECK_PROMPT_TOKENS, self.spec.max_model_len // 2)
        outputs = min(SETTLING_STEPS + STEPS + 1, self.spec.max_model_len - prompt_tokens)
        equal = [
            Request(f"check-{i}", [100 + i % 100] * prompt_tokens, outputs, True)
            for i in range(size)
        ]
        policy = Policy(kind="fixed", threshold=self.spec.n_slots)
        command = RunCommand(policy, equal, {"temperature": 0.0})
        # The client counts the requests of its own run only.
        record = msgspec.msgpack.decode(
            self.run(command, lambda _: report(Progress(0, 0))).record, type=RunRecord
        )
        steps = [step.duration_s for step in record.steps if step.decode_requests == size]
        return [duration for duration in steps[SETTLING_STEPS:] if duration > 0]

    def run(self, command: RunCommand, progress: Callable[[Progress], None]) -> RunResult:
        """Serve one run to its end.

        Args:
            command: the run.
            progress: called every `PROGRESS_INTERVAL_S` s; if it raises, the run is aborted.

        Raises:
            InputError: if vLLM refuses a request (too long, bad sampling options).
            RecordError: if the record did not fit on the disk.
        """
        # Imported late: pdswitch.plugin.scheduler imports vLLM, whose import takes seconds.
        from pdswitch.plugin.scheduler import RunOrder

        # Refused here, because an error inside a separate engine core would end it.
        Controller(command.policy, self.spec.n_slots)
        refuse_malformed(command)
        before = self._hardware.conditions()
        with tempfile.TemporaryDirectory(prefix="pdswitch-run-") as folder:
            record_path = Path(folder) / "record.msgpack"
            order = RunOrder(command.policy, len(command.requests), str(record_path))
            extra: dict[str, Any] | None = {ORDER_KEY: msgspec.to_builtins(order)}
            names: dict[str, str] = {}
            finished: dict[str, Any] = {}
            try:
                for request in command.requests:
                    names[self._add(request, command, extra)] = request.request_id
                    extra = None  # the first request brings the order for all
                self._serve(finished, progress)
            except BaseException:
                self._abort(list(names))
                raise
            after = self._hardware.conditions()
            record = _read_record(record_path)
        return RunResult(
            _rename(record, names),
            _outputs(command, finished),
            {"before": before, "after": after},
        )

    def _add(self, request: Request, command: RunCommand, extra: dict[str, Any] | None) -> str:
        """Queue a request; return the unique id that vLLM gives it, which the record has."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        try:
            params = SamplingParams(
                **command.sampling,
                max_tokens=request.max_tokens,
                ignore_eos=request.ignore_eos,
                detokenize=command.want_outputs,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args=extra,
            )
            prompt = {"prompt_token_ids": request.prompt_token_ids}
            return self._engine.add_request(request.request_id, prompt, params)
        except Exception as error:  # its validation errors have no common base over the versions
            raise InputError(f"vLLM refused request {request.request_id}: {error}") from error

    def _serve(self, finished: dict[str, Any], progress: Callable[[Progress], None]) -> None:
        tokens = 0
        next_report = time.monotonic()
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                finished[output.request_id] = output
                tokens += len(output.outputs[0].token_ids)
            if time.monotonic() >= next_report:
                progress(Progress(len(finished), tokens))
                next_report = time.monotonic() + PROGRESS_INTERVAL_S

    def _abort(self, internal_names: list[str]) -> None:
        self._engine.abort_request(internal_names, internal=True)
        while self._engine.has_unfinished_requests():
            self._engine.step()

    def call_worker(self, method: str) -> Any:
        """Call a method of the first worker, one that ``worker_extension_cls`` added."""
        return self._engine.collective_rpc(method)[0]

    def shutdown(self) -> None:
        """End vLLM's own processes."""
        self._engine.engine_core.shutdown()


def prepare_process(spec: EngineSpec) -> None:
    """Set what vLLM and torch read from their process when they are imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if spec.separate_core else "0"
    take_cores(spec, os.environ)
    # Usage reports would go to the network.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def llm_arguments(spec: EngineSpec) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM` for a spec."""
    arguments: dict[str, Any] = {
        "model": spec.model,
        "revision": spec.revision,
        "dtype": spec.dtype,
        "load_format": spec.load_format,
        "max_num_seqs": spec.n_slots,
        "max_model_len": spec.max_model_len,
        "max_num_batched_tokens": spec.max_num_batched_tokens,
        "tensor_parallel_size": spec.tensor_parallel_size,
        "gpu_memory_utilization": spec.gpu_memory_utilization,
        "enforce_eager": spec.enforce_eager,
        "seed": spec.seed,
        "scheduler_cls": SCHEDULER,
        "worker_extension_cls": EXTENSION,
        # On, it would let every run after the first skip its prefill.
        "enable_prefix_caching": False,
        "disable_log_stats": True,
    }
    if spec.num_kv_blocks is not None:
        arguments["num_gpu_blocks_override"] = spec.num_kv_blocks
    if spec.kv_cache_memory_bytes is not None:
        arguments["kv_cache_memory_bytes"] = spec.kv_cache_memory_bytes
    if spec.cuda_graph_sizes is not None:
        arguments["compilation_config"] = {"cudagraph_capture_sizes": spec.cuda_graph_sizes}
    arguments |= spec.vllm_options
    additional = arguments.get("additional_config", {})
    return arguments | {"additional_config": {**additional, ORDER_KEY: {"trusted": True}}}


def refuse_malformed(command: RunCommand) -> None:
    """Refuse what vLLM would not notice before it is inside a step, where an error ends it.

    Raises:
        InputError: naming the request and what is wrong with it.
    """
    seen = set()
    for request in command.requests:
        if request.request_id in seen:
            raise InputError(f"two requests of a run are called {request.request_id!r}")
        seen.add(request.request_id)
        if min(request.prompt_token_ids, default=0) < 0:
            raise InputError(f"request {request.request_id!r} has a negative token id")
    if not seen:
        raise InputError("a run needs at least one request")
    for name, usual in NOT_FOR_RUNS.items():
        if command.sampling.get(name, usual) != usual:
            raise InputError(
                f"{name} is {command.sampling[name]!r}; a run gives one answer per request and no "
                "log-probabilities: leave it out"
            )


class RecordError(OSError):
    """The scheduler could not write a run's record; the message says where, and the remedy."""


def _read_record(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        free = shutil.disk_usage(path.parent).free
        raise RecordError(
            f"the record of the run could not be written to {path.parent}, which has {free} bytes "
            "left; free some space there, or set TMPDIR to a folder that has more"
        ) from error


def _rename(record: bytes, names: dict[str, str]) -> bytes:
    content = msgspec.msgpack.decode(record)
    for row in content["requests"]:
        row[0] = names[row[0]]
    return msgspec.msgpack.encode(content)


def _outputs(command: RunCommand, finished: dict[str, Any]) -> list[Output]:
    if not command.want_outputs:
        return []
    outputs = []
    for request in command.requests:
        generated = finished[request.request_id].outputs[0]
        outputs.append(Output(request.request_id, list(generated.token_ids), generated.text))
    return outputs
