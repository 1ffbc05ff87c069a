"""What NVML says goes into the results; what it does not know is null."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from manifest import MODEL
from pdswitch.engine import hardware
from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.engine.hardware import THROTTLE_REASONS, Hardware, throttle_reasons, usable_gpus


class FakeNvml:
    """Two devices as an H200 host's driver would describe them; `missing` raises as NVML does."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVML_TEMPERATURE_GPU = 0
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    class NVMLError(Exception):
        pass

    def __init__(self, missing: str = "none of them") -> None:
        self.missing = missing

    def __getattribute__(self, name: str):
        if name.startswith("nvml") and name == object.__getattribute__(self, "missing"):
            raise FakeNvml.NVMLError("Not Supported")
        return object.__getattribute__(self, name)

    def nvmlSystemGetDriverVersion(self):
        return "570.86.15"

    def nvmlSystemGetCudaDriverVersion(self):
        return 12080

    def nvmlDeviceGetHandleByIndex(self, index):
        if index > 1:
            raise FakeNvml.NVMLError("Invalid Argument")
        return f"GPU-{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetName(self, handle):
        return "NVIDIA H200"

    def nvmlDeviceGetUUID(self, handle):
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=150_754_820_096, used=1_000_000)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        return {1: 1980, 2: 3201}[kind]

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return {1: 1455, 2: 3201}[kind]

    def nvmlDeviceGetPowerUsage(self, handle):
        return 698_400

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 12_345_678

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 71

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return 0x24

    def nvmlDeviceGetViolationStatus(self, handle, policy):
        return SimpleNamespace(violationTime={0: 2_500_000_000, 1: 0}[policy])


def test_identity_of_the_devices_in_the_units_of_their_names():
    identity = Hardware(FakeNvml(), "", 2).identity()
    assert identity["driver"] == "570.86.15"
    assert identity["cuda_driver"] == "12.8"
    assert [device["uuid"] for device in identity["devices"]] == ["GPU-0", "GPU-1"]
    assert identity["devices"][0] == {
        "name": "NVIDIA H200",
        "uuid": "GPU-0",
        "memory_bytes": 150_754_820_096,
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 3201,
    }


def test_a_throttled_device_shows_in_the_conditions():
    conditions = Hardware(FakeNvml(), "1", 1).conditions()
    assert conditions["devices"] == [
        {
            "sm_clock_mhz": 1455,
            "memory_clock_mhz": 3201,
            "power_w": pytest.approx(698.4),
            "temperature_c": 71,
            "throttle_reasons": ["sw_power_cap", "sw_thermal_slowdown"],
            "energy_j": pytest.approx(12_345.678),
            "power_throttled_s": pytest.approx(2.5),
            "thermal_throttled_s": 0.0,
            "memory_used_bytes": 1_000_000,
        }
    ]
    assert conditions["load_average"] >= 0


@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [
        ("", 1, ["GPU-0"]),
        ("1", 1, ["GPU-1"]),
        ("1,0", 2, ["GPU-1", "GPU-0"]),
        ("1,0", 1, ["GPU-1"]),
        ("MIG-7", 1, ["MIG-7"]),
        ("5", 1, [None]),
    ],
)
def test_the_devices_are_those_cuda_sees(visible, count, found):
    devices = Hardware(FakeNvml(), visible, count).identity()["devices"]
    assert [device["uuid"] for device in devices] == found


def test_without_nvml_there_are_no_devices_but_the_processor():
    nothing = Hardware(None, "", 1)
    identity = nothing.identity()
    assert (identity["driver"], identity["cuda_driver"], identity["devices"]) == (None, None, [])
    assert nothing.conditions()["devices"] == []


FUNCTIONS = re.findall(r'"(nvml\w+)"', Path(hardware.__file__).read_text())


@pytest.mark.parametrize("missing", FUNCTIONS)
def test_what_a_device_does_not_support_is_none_and_the_rest_is_there(missing):
    fake = FakeNvml(missing)
    devices = Hardware(fake, "", 1)
    found = {**devices.identity(), **devices.conditions()["devices"][0]}
    found |= devices.identity()["devices"][0]
    unknown = {name for name, value in found.items() if value is None}
    by_handle = missing == "nvmlDeviceGetHandleByIndex"
    if missing != "nvmlDeviceGetHandleByUUID":  # not asked: the devices are counted
        assert 1 <= len(unknown) <= (16 if by_handle else 2)


def test_vllm_s_copy_of_pynvml_has_all_that_is_asked():
    spec = importlib.util.find_spec("vllm")
    source = (Path(spec.origin).parent / "third_party/pynvml.py").read_text()
    for name in FUNCTIONS:
        assert f"def {name}(" in source
    for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU"):
        assert re.search(rf"^{name}\s*=", source, re.MULTILINE)
    assert set(THROTTLE_REASONS) == {
        int(bits, 16)
        for bits in re.findall(r"^nvmlClocksEventReason\w+\s*= (0x\w+)$", source, re.MULTILINE)
    } - {0}


def test_reasons_are_named_by_their_bits():
    assert throttle_reasons(0) == []
    assert throttle_reasons(0x1FF) == list(THROTTLE_REASONS.values())


TWO_GPUS = (
    "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5c89852c-d268)\n"
    "  MIG 1g.10gb     Device  0: (UUID: MIG-c6d4f1ef-42e4)\n"
    "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1e1b5a4f-77c1)\n"
)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A driver's command that lists two GPUs; a test may let it say something else."""
    command = tmp_path / "nvidia-smi"

    def say(text: str, status: int = 0) -> None:
        command.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}EOF\nexit {status}\n")
        command.chmod(0o755)

    say(TWO_GPUS)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return say


@pytest.mark.parametrize(
    ("visible", "usable"),
    [
        ("", 2),
        ("0", 1),
        ("1, 0", 2),
        ("1,2,0", 1),
        ("-1", 0),
        ("GPU-5c89,GPU-1e1b", 2),
        ("MIG-c6d4f1ef-42e4", 1),
        ("GPU-other,0", 0),
    ],
)
def test_usable_gpus_are_those_up_to_the_first_name_that_is_not_there(driver, visible, usable):
    assert usable_gpus(visible) == usable


def test_a_driver_that_cannot_be_asked_is_not_guessed_at(driver, tmp_path, monkeypatch):
    driver("No devices were found\n", 6)
    assert usable_gpus("") == 0
    driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver\n", 9)
    assert usable_gpus("") is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert usable_gpus("") is None


def engine_on(gpus: int, **vllm_options):
    return make_spec(
        EngineOptions(
            n_slots=2,
            max_input_tokens=10,
            max_output_tokens=10,
            device="cuda",
            tensor_parallel_size=gpus,
            vllm_options=vllm_options,
        ),
        MODEL,
    )


def test_more_gpus_than_there_are_is_said_before_the_engine_starts(driver, monkeypatch):
    assert engine_on(2).tensor_parallel_size == 2
    with pytest.raises(ValueError, match="is 4, which takes 4 GPUs on this machine, but 2 can be"):
        engine_on(4)
    assert engine_on(4, nnodes=2).tensor_parallel_size == 4
    assert engine_on(4, distributed_executor_backend="ray").tensor_parallel_size == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ValueError, match=r"but 1 can be used \(CUDA_VISIBLE_DEVICES is 1\); lower"):
        engine_on(2)
    driver("No devices were found\n", 6)
    with pytest.raises(ValueError, match=r"no GPU can be used .* or set engine.device: cpu"):
        engine_on(1)
