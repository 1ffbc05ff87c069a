"""Where an engine's socket, lock and log lie."""

import msgspec
import pytest

from pdswitch.engine import gpus
from pdswitch.engine.client import log_name
from pdswitch.engine.device import JOB_VARIABLES, runtime_root
from pdswitch.engine.gpus import Gpu, device_names, kinds_of, list_gpus
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


LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-aa11)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bb22)
  MIG 1g.10gb     Device  0: (UUID: MIG-cc33)
  MIG 2g.20gb     Device  1: (UUID: MIG-dd44)
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """An nvidia-smi that lists two GPUs, one of them partitioned."""
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def spec_on(visible: str, count: int = 1) -> EngineSpec:
    sizes = {"n_slots": 8, "max_model_len": 64, "max_num_batched_tokens": 64}
    return EngineSpec(
        model="m", device="cuda", visible_devices=visible, tensor_parallel_size=count, **sizes
    )


@pytest.mark.parametrize(
    ("visible", "count", "devices"),
    [
        ("", 1, ["gpu-0"]),
        ("0", 1, ["gpu-0"]),
        ("00", 1, ["gpu-0"]),
        ("0,1", 1, ["gpu-0"]),
        ("3, 1", 2, ["gpu-1", "gpu-3"]),
        ("1,3", 2, ["gpu-1", "gpu-3"]),
        ("", 2, ["gpu-0", "gpu-1"]),
        ("GPU-8f1", 1, ["gpu-GPU-8f1"]),
    ],
)
def test_an_engine_takes_the_first_visible_devices(monkeypatch, visible, count, devices):
    monkeypatch.setattr(gpus, "list_gpus", list)
    assert device_names(spec_on(visible, count)) == devices
    assert device_names(msgspec.structs.replace(spec_on(visible, count), device="cpu")) == ["cpu"]


@pytest.mark.parametrize(
    ("visible", "device", "kind"),
    [
        ("0", "gpu-0", "NVIDIA H200"),
        ("GPU-aa11", "gpu-0", "NVIDIA H200"),
        ("GPU-bb", "gpu-1", "NVIDIA A100-SXM4-80GB"),
        ("MIG-dd44", "gpu-MIG-dd44", "NVIDIA A100-SXM4-80GB MIG 2g.20gb"),
        ("MIG-dd", "gpu-MIG-dd44", "NVIDIA A100-SXM4-80GB MIG 2g.20gb"),
        ("GPU-ee55", "gpu-GPU-ee55", None),
        ("7", "gpu-7", None),
    ],
)
def test_a_gpu_is_the_same_by_number_and_by_uuid(two_gpus, visible, device, kind):
    assert device_names(spec_on(visible)) == [device]
    assert kinds_of(spec_on(visible)) == [kind]


def test_the_kinds_of_several_gpus_are_those_of_all(two_gpus):
    assert kinds_of(spec_on("1,0", 2)) == ["NVIDIA A100-SXM4-80GB", "NVIDIA H200"]
    assert kinds_of(msgspec.structs.replace(spec_on("0"), device="cpu")) == []


def test_what_nvidia_smi_does_not_list_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == []
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho GPU 0: half a li\n")
    script.chmod(0o755)
    assert list_gpus() == []
    script.write_text("#!/bin/sh\necho 'GPU 0: a kind (UUID: GPU-x)'\nexit 9\n")
    assert list_gpus() == []
    script.write_text("#!/bin/sh\necho 'GPU 0: a kind (UUID: GPU-x)'\n")
    assert list_gpus() == [Gpu(0, "GPU-x", "a kind")]


def test_engines_that_start_in_the_same_second_do_not_share_a_log(monkeypatch):
    names = set()
    for host in ("node1", "node2"):
        for pid in (17, 18):
            monkeypatch.setattr("socket.gethostname", lambda host=host: host)
            monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
            names.add(log_name("key"))
    assert len(names) == 4
