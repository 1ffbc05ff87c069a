"""One model over several workers: what vLLM is asked for, and a run over two processes."""

import json
import os

import msgspec
import psutil
import pytest

from manifest import MODEL
from pdswitch.config import ENGINE_KEEPING, parse_config
from pdswitch.engine.client import EngineError
from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.engine.spec import EngineSpec, source_digest
from pdswitch.engine.vllm_engine import llm_arguments
from pdswitch.record import decode_record
from real_engine import LONG, await_gone, command, engine_pids, group_of, opened


def spec_of(config: dict) -> EngineSpec:
    """Return the engine of a config, as the rules pass it on."""
    settings = parse_config(config)
    options = settings.engine.model_dump(exclude=ENGINE_KEEPING) | {
        "n_slots": settings.batch_size,
        "max_input_tokens": settings.max_input_tokens,
        "max_output_tokens": settings.max_output_tokens,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
    }
    return make_spec(msgspec.convert(json.loads(json.dumps(options)), EngineOptions), MODEL)


@pytest.mark.parametrize("backend", ["mp", "ray"])
def test_parallelism_reaches_vllm_as_configured(backend):
    spec = spec_of(
        {
            "dataset": "demo",
            "tensor_parallel_size": 4,
            "engine": {
                "device": "cuda",
                "vllm_options": {"distributed_executor_backend": backend, "nnodes": 2},
            },
        }
    )
    arguments = llm_arguments(spec)
    assert arguments["tensor_parallel_size"] == 4
    assert arguments["distributed_executor_backend"] == backend
    assert arguments["nnodes"] == 2
    assert arguments["scheduler_cls"] == "pdswitch.plugin.scheduler.SwitchingScheduler"
    other = msgspec.structs.replace(spec, tensor_parallel_size=2)
    assert other.key() != spec.key()


@pytest.mark.rare
def test_two_workers_serve_a_run_and_its_record_is_whole(tiny_model, tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    spec = EngineSpec(
        model=str(tiny_model),
        n_slots=4,
        max_model_len=512,
        max_num_batched_tokens=1024,
        device="cpu",
        dtype="float32",
        num_kv_blocks=20,
        kv_cache_memory_bytes=1 << 28,
        enforce_eager=True,
        tensor_parallel_size=2,
        separate_core=True,
        vllm_options={"distributed_executor_backend": "mp"},
        # vLLM binds each worker to a NUMA node of its own, of which a small machine has one.
        environment={"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}"},
        source_digest=source_digest(),
    )
    with opened(spec, tmp_path) as engine:
        record = decode_record(engine.run(command(), lambda p: None).record)
        pid = engine.facts["pid"]
        assert [worker["torch_threads"] for worker in engine.facts["workers"]] == [1, 1]
        # Host, watcher, core, two workers.
        assert len(group_of(pid)) >= 5
    assert sum(row.output_tokens for row in record.requests) == 30
    assert not [s for s in record.steps if s.prefill_requests and s.decode_requests]
    with opened(spec, tmp_path) as engine, pytest.raises(EngineError, match="the engine died"):
        engine.run(command(*LONG), lambda progress: kill_a_worker(pid))
    await_gone(pid)
    assert engine_pids(tmp_path) == []


def kill_a_worker(host: int) -> None:
    """Kill one of vLLM's own processes, as the system does where memory runs out."""
    for process in psutil.Process(host).children(recursive=True):
        if "VLLM::Worker" in process.name():
            process.kill()
            return
