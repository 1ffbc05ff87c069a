"""The cores of an engine on the CPU: a thread on each, a share for every worker."""

import os

import msgspec
import pytest

from manifest import MODEL
from pdswitch.engine import cores
from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.engine.cores import asked_of_workers, refuse_too_many, take_cores
from pdswitch.engine.spec import EngineSpec

SPEC = EngineSpec(
    model="m", n_slots=4, max_model_len=64, max_num_batched_tokens=64, device="cpu", threads=6
)


@pytest.fixture
def affinity(monkeypatch):
    """Eight cores, of which this process may use seven; what it then chooses."""
    chosen = {1, 2, 3, 4, 5, 6, 7}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(chosen))

    def choose(pid, wanted):
        chosen.clear()
        chosen.update(wanted)

    monkeypatch.setattr(os, "sched_setaffinity", choose)
    return chosen


def changed(**changes) -> EngineSpec:
    return msgspec.structs.replace(SPEC, **changes)


def test_an_engine_in_one_process_keeps_to_its_cores_with_a_thread_on_each(affinity):
    environment: dict[str, str] = {}
    take_cores(SPEC, environment)
    assert affinity == {1, 2, 3, 4, 5, 6}
    assert environment == {"OMP_NUM_THREADS": "6"}
    assert asked_of_workers(SPEC) == {"torch_threads": 6, "cores": 6}


@pytest.mark.parametrize(
    ("workers", "binding", "each"),
    [(1, "1,2,3,4,5,6", 6), (2, "1,2,3|4,5,6", 3), (4, "1|2|3|4", 1)],
)
def test_workers_of_their_own_get_equal_shares_and_the_scheduler_the_rest(
    affinity, workers, binding, each
):
    apart = changed(separate_core=True, tensor_parallel_size=workers)
    environment: dict[str, str] = {}
    take_cores(apart, environment)
    assert environment == {"VLLM_CPU_OMP_THREADS_BIND": binding}
    assert len(affinity) == 7
    assert asked_of_workers(apart) == {"torch_threads": each, "cores": None}
    if workers > 1:
        assert asked_of_workers(msgspec.structs.replace(apart, separate_core=False)) == {
            "torch_threads": each,
            "cores": None,
        }


def test_what_the_user_sets_stays(affinity):
    own = {"OMP_NUM_THREADS": "3"}
    take_cores(SPEC, own)
    assert own == {"OMP_NUM_THREADS": "3"}
    assert asked_of_workers(changed(environment=own)) == {"torch_threads": 3, "cores": 6}
    bound = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    take_cores(changed(separate_core=True), bound)
    assert bound == {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    assert asked_of_workers(changed(separate_core=True, environment=bound)) == {
        "torch_threads": None,
        "cores": None,
    }


def test_on_a_gpu_vllm_decides_unless_the_user_does(affinity):
    gpu = changed(device="cuda", threads=None, separate_core=True)
    environment: dict[str, str] = {}
    take_cores(gpu, environment)
    assert environment == {}
    assert len(affinity) == 7
    assert asked_of_workers(gpu) == {"torch_threads": None, "cores": None}
    for value, threads in (("2", 2), ("4,2", None)):
        told = msgspec.structs.replace(gpu, environment={"OMP_NUM_THREADS": value})
        assert asked_of_workers(told) == {"torch_threads": threads, "cores": None}


def test_cores_that_are_not_there_are_refused(affinity):
    with pytest.raises(ValueError, match="need 8 cores, but 7 can be used here; lower engine"):
        refuse_too_many(8, 1)
    with pytest.raises(ValueError, match=r"is 4, but engine.threads is 3; every worker needs"):
        refuse_too_many(3, 4)
    refuse_too_many(7, 7)


@pytest.mark.parametrize(("workers", "threads"), [(1, 6), (2, 6), (7, 7)])
def test_by_default_one_core_is_left_to_the_workflow(affinity, workers, threads):
    options = EngineOptions(
        n_slots=4,
        max_input_tokens=8,
        max_output_tokens=8,
        device="cpu",
        tensor_parallel_size=workers,
    )
    assert make_spec(options, MODEL).threads == threads
    with pytest.raises(ValueError, match="need 9 cores"):
        make_spec(msgspec.structs.replace(options, threads=9), MODEL)


def test_variables_that_change_the_engine_are_in_its_key(monkeypatch):
    options = EngineOptions(n_slots=4, max_input_tokens=8, max_output_tokens=8, device="cpu")
    keys = set()
    for name in ("PATH", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.setenv(name, "/somewhere/else")
        keys.add(make_spec(options, MODEL).key())
    assert len(keys) == 1
    monkeypatch.setenv("VLLM_CPU_SGL_KERNEL", "1")
    assert make_spec(options, MODEL).key() not in keys


def test_the_machine_s_own_cores_are_counted():
    assert cores.available_cores() == len(os.sched_getaffinity(0))
