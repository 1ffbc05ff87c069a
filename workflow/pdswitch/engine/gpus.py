"""The GPUs of this machine, as `nvidia-smi` lists them: which ones an engine takes, and their kind.

Asks neither torch nor CUDA, so that a job may ask while no GPU is free.
"""

import re
import subprocess
from typing import NamedTuple

from pdswitch.engine.spec import EngineSpec

TIMEOUT_S = 60.0
GPU = re.compile(r"GPU (\d+): (.+) \(UUID: (\S+)\)")
INSTANCE = re.compile(r"MIG (\S+) +Device +\d+: \(UUID: (\S+)\)")


class Gpu(NamedTuple):
    """A GPU, or an instance of one that is partitioned (MIG).

    Attributes:
        number: as CUDA and the driver count; None for an instance.
        uuid: its id.
        name: its kind, "NVIDIA H200"; of an instance with the profile's name.
    """

    number: int | None
    uuid: str
    name: str


def list_gpus() -> list[Gpu]:
    """Return the GPUs of this machine; none where `nvidia-smi` does not answer."""
    try:
        run = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[Gpu] = []
    whole = ""
    for line in map(str.strip, run.stdout.splitlines()):
        if match := GPU.fullmatch(line):
            number, whole, uuid = match.groups()
            found.append(Gpu(int(number), uuid, whole))
        elif match := INSTANCE.fullmatch(line):
            profile, uuid = match.groups()
            found.append(Gpu(None, uuid, f"{whole} MIG {profile}"))
    return found


def device_names(spec: EngineSpec) -> list[str]:
    """Return the names of the devices that an engine takes, sorted, as parts of file names.

    A GPU has one name, whether its number or its UUID makes it visible.
    """
    if spec.device == "cpu":
        return ["cpu"]
    return sorted({f"gpu-{_one_name(device)}" for device in spec.devices})


def kinds_of(spec: EngineSpec) -> list[str | None]:
    """Return the kind of every GPU that an engine takes, in its order; None if it is not known."""
    gpus = list_gpus()
    found = (_find(device, gpus) for device in spec.devices)
    return [None if gpu is None else gpu.name for gpu in found]


def _one_name(device: str) -> str:
    if device.isdecimal():
        return str(int(device))
    gpu = _find(device, list_gpus())
    if gpu is None:
        return device
    return gpu.uuid if gpu.number is None else str(gpu.number)


def _find(device: str, gpus: list[Gpu]) -> Gpu | None:
    """Find a GPU by its name in CUDA_VISIBLE_DEVICES: its number, or how its UUID begins."""
    for gpu in gpus:
        if device == str(gpu.number) or (not device.isdecimal() and gpu.uuid.startswith(device)):
            return gpu
    return None
