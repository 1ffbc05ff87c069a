"""Where an engine's socket, lock and log lie."""

import msgspec
import pytest

from pdswitch.engine.client import log_name
from pdswitch.engine.device import JOB_VARIABLES, runtime_root
from pdswitch.engine.spec import EngineSpec


@pytest.fixture(autouse=True)
def outside_any_job(monkeypatch):
    for variable in JOB_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_it_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PDSWITCH_RUNTIME_DIR", str(tmp_path))
    assert runtime_root() == tmp_path


@pytest.mark.parametrize(
    ("variable", "number", "name"),
    [
        ("SLURM_JOB_ID", "17", "job-17"),
        ("PBS_JOBID", "17[3].head", "job-17_3_.head"),
        ("LSB_JOBID", "17", "job-17"),
    ],
)
def test_two_jobs_on_a_node_do_not_take_their_devices_for_one(
    monkeypatch, tmp_path, variable, number, name
):
    monkeypatch.setenv("PDSWITCH_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv(variable, number)
    assert runtime_root() == tmp_path / name


@pytest.mark.parametrize(
    ("visible", "count", "label"),
    [
        ("", 1, "gpu-0"),
        ("0", 1, "gpu-0"),
        ("0,1", 1, "gpu-0"),
        ("3, 1", 2, "gpu-3-1"),
        ("", 2, "gpu-0-1"),
        ("GPU-8f/1", 1, "gpu-GPU-8f_1"),
    ],
)
def test_an_engine_is_named_by_the_devices_it_takes(visible, count, label):
    sizes = {"n_slots": 8, "max_model_len": 64, "max_num_batched_tokens": 64}
    spec = EngineSpec(
        model="m", device="cuda", visible_devices=visible, tensor_parallel_size=count, **sizes
    )
    assert spec.device_label == label
    assert msgspec.structs.replace(spec, device="cpu").device_label == "cpu"


def test_engines_that_start_in_the_same_second_do_not_share_a_log(monkeypatch):
    names = set()
    for host in ("node1", "node2"):
        for pid in (17, 18):
            monkeypatch.setattr("socket.gethostname", lambda host=host: host)
            monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
            names.add(log_name("key"))
    assert len(names) == 4
