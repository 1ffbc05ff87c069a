"""The cores of an engine on the CPU.

OpenMP threads wait for each other in a busy loop. A step takes many times as long if one of them
shares its core. So every worker gets cores of its own, one thread on each.
"""

import os
from collections.abc import MutableMapping
from typing import Any

from pdswitch.engine.spec import EngineSpec
from pdswitch.errors import InputError

BINDING = "VLLM_CPU_OMP_THREADS_BIND"
THREADS = "OMP_NUM_THREADS"


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def default_threads(workers: int) -> int:
    """Return the cores of a CPU engine by default: all but one, left to the workflow itself."""
    return max(workers, available_cores() - 1)


def refuse_too_many(threads: int, workers: int) -> None:
    """Refuse a number of cores that this process does not have, or that leaves a worker none.

    Raises:
        InputError: with the remedy.
    """
    available = available_cores()
    if threads > available:
        raise InputError(
            f"the engine would need {threads} cores, but {available} can be used here; lower "
            "engine.threads, or tensor_parallel_size"
        )
    if threads < workers:
        raise InputError(
            f"tensor_parallel_size is {workers}, but engine.threads is {threads}; every worker "
            "needs a core"
        )


def take_cores(spec: EngineSpec, environment: MutableMapping[str, str]) -> None:
    """Keep this process, or the workers that it will start, to the engine's cores.

    Args:
        spec: its `threads` is None where vLLM decides, as on a GPU.
        environment: of this process; what the user has set there stays.
    """
    if spec.threads is None:
        return
    cores = sorted(os.sched_getaffinity(0))
    if _has_worker_processes(spec):
        # vLLM binds the threads itself; scheduler and front end may run anywhere.
        each, workers = _share(spec), range(spec.tensor_parallel_size)
        shares = [cores[worker * each : (worker + 1) * each] for worker in workers]
        binding = "|".join(",".join(map(str, share)) for share in shares)
        environment.setdefault(BINDING, binding)
    else:
        os.sched_setaffinity(0, cores[: spec.threads])
        environment.setdefault(THREADS, str(spec.threads))


def asked_of_workers(spec: EngineSpec) -> dict[str, Any]:
    """Return what `WorkerFacts` must say of every worker; None where vLLM or the user decides."""
    if spec.threads is not None and _has_worker_processes(spec):
        # The binding of one thread may be narrower than the cores of its worker.
        return {
            "torch_threads": None if BINDING in spec.environment else _share(spec),
            "cores": None,
        }
    own = spec.environment.get(THREADS, "")
    return {"torch_threads": int(own) if own.isdecimal() else spec.threads, "cores": spec.threads}


def _has_worker_processes(spec: EngineSpec) -> bool:
    return spec.separate_core or spec.tensor_parallel_size > 1


def _share(spec: EngineSpec) -> int:
    """Return how many cores each worker gets."""
    return (spec.threads or 0) // spec.tensor_parallel_size
