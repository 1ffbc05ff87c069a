"""What an engine runs on: its devices' identity, and their clocks and power around every run.

Read through NVML where there is an NVIDIA driver. What NVML or a device does not know is None.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Bits of nvmlDeviceGetCurrentClocksEventReasons, from nvml.h.
THROTTLE_REASONS = {
    0x01: "gpu_idle",
    0x02: "applications_clocks_setting",
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
MILLI = 1e-3
DRIVER_TIMEOUT_S = 60.0
NANO = 1e-9


class Hardware:
    """The devices of one engine.

    Args:
        nvml: the module pynvml after `nvmlInit`, or None where there is no driver.
        visible_devices: CUDA_VISIBLE_DEVICES of the engine, empty for all.
        count: devices the engine uses, the first ones of the visible.
    """

    def __init__(self, nvml: Any, visible_devices: str, count: int) -> None:
        self._nvml = nvml
        self._handles = [] if nvml is None else self._find(visible_devices, count)

    def _find(self, visible_devices: str, count: int) -> list[Any]:
        names = visible_devices.split(",") if visible_devices else map(str, range(count))
        return [
            self._ask("nvmlDeviceGetHandleByIndex", int(name))
            if name.strip().isdecimal()
            else self._ask("nvmlDeviceGetHandleByUUID", name.strip())
            for name in list(names)[:count]
        ]

    def identity(self) -> dict[str, Any]:
        """Return what stays the same: driver, and of each device name, id, memory and limits."""
        version = self._ask("nvmlSystemGetCudaDriverVersion")
        return {
            "cpu": cpu_name(),
            "driver": self._ask("nvmlSystemGetDriverVersion"),
            "cuda_driver": _map(version, lambda v: f"{v // 1000}.{v % 1000 // 10}"),
            "devices": [self._identity(handle) for handle in self._handles],
        }

    def _identity(self, handle: Any) -> dict[str, Any]:
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        return {
            "name": self._ask("nvmlDeviceGetName", handle),
            "uuid": self._ask("nvmlDeviceGetUUID", handle),
            "memory_bytes": _map(memory, lambda m: m.total),
            "power_limit_w": _map(limit, lambda milliwatts: milliwatts * MILLI),
            "max_sm_clock_mhz": self._clock("nvmlDeviceGetMaxClockInfo", handle, "SM"),
            "max_memory_clock_mhz": self._clock("nvmlDeviceGetMaxClockInfo", handle, "MEM"),
        }

    def conditions(self) -> dict[str, Any]:
        """Return what changes: the machine's load, and each device's clocks, power and heat.

        `energy_j`, `power_throttled_s` and `thermal_throttled_s` count up since the driver was
        loaded: what a run used is the difference of two samples.
        """
        return {
            "load_average": os.getloadavg()[0],
            "cores": os.cpu_count(),
            "devices": [self._conditions(handle) for handle in self._handles],
        }

    def _conditions(self, handle: Any) -> dict[str, Any]:
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        sensor = getattr(self._nvml, "NVML_TEMPERATURE_GPU", None)
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        return {
            "sm_clock_mhz": self._clock("nvmlDeviceGetClockInfo", handle, "SM"),
            "memory_clock_mhz": self._clock("nvmlDeviceGetClockInfo", handle, "MEM"),
            "power_w": _map(power, lambda milliwatts: milliwatts * MILLI),
            "temperature_c": self._ask("nvmlDeviceGetTemperature", handle, sensor),
            "throttle_reasons": _map(reasons, throttle_reasons),
            "energy_j": _map(energy, lambda millijoules: millijoules * MILLI),
            "power_throttled_s": self._throttled(handle, "POWER"),
            "thermal_throttled_s": self._throttled(handle, "THERMAL"),
            "memory_used_bytes": _map(memory, lambda m: m.used),
        }

    def _clock(self, function: str, handle: Any, kind: str) -> int | None:
        return self._ask(function, handle, getattr(self._nvml, f"NVML_CLOCK_{kind}", None))

    def _throttled(self, handle: Any, policy: str) -> float | None:
        number = getattr(self._nvml, f"NVML_PERF_POLICY_{policy}", None)
        status = self._ask("nvmlDeviceGetViolationStatus", handle, number)
        return _map(status, lambda s: s.violationTime * NANO)

    def _ask(self, function: str, *arguments: Any) -> Any:
        if self._nvml is None or None in arguments:
            return None
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None  # not on this device, or not in this version of NVML


def load_nvml() -> Any:
    """Return the module pynvml, initialised, or None where there is no NVIDIA driver."""
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def usable_gpus(visible_devices: str) -> int | None:
    """Return how many GPUs an engine may use here; None where the driver cannot be asked.

    The driver is asked through its command: loading vLLM for NVML would take a job seconds.

    Args:
        visible_devices: CUDA_VISIBLE_DEVICES, empty for all. CUDA takes the names up to the first
            that is not there.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        answer = subprocess.run(
            [command, "-L"], capture_output=True, text=True, check=False, timeout=DRIVER_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return None
    listed = answer.stdout
    # "GPU 0: NVIDIA H100 (UUID: GPU-…)"; below it its parts, "  MIG 1g.10gb Device 0: (UUID: …)".
    indices = re.findall(r"^GPU (\d+):", listed, re.MULTILINE)
    ids = re.findall(r"\(UUID: ([^)]+)\)", listed)
    if not indices and "No devices" not in listed:
        return None
    if not visible_devices:
        return len(indices)
    names = [name.strip() for name in visible_devices.split(",")]
    there = [
        name in indices or (name != "" and any(known.startswith(name) for known in ids))
        for name in names
    ]
    return there.index(False) if False in there else len(there)


def throttle_reasons(bits: int) -> list[str]:
    """Return the names of the reasons why a device's clocks are where they are."""
    return [name for bit, name in THROTTLE_REASONS.items() if bits & bit]


def cpu_name() -> str | None:
    """Return the processor's name as Linux has it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    return None if value is None else function(value)
