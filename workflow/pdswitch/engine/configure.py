"""From the config's engine options and a model's manifest to the spec of an engine."""

import os
from typing import Any, Literal

import msgspec

from pdswitch.engine.cores import default_threads, refuse_too_many
from pdswitch.engine.environment import DEVICES, refuse_fields, tuning
from pdswitch.engine.hardware import usable_gpus
from pdswitch.engine.spec import (
    EngineSpec,
    detect_device,
    installed_vllm,
    source_digest,
    visible_devices,
)
from pdswitch.engine.vllm_engine import llm_arguments
from pdswitch.errors import InputError
from pdswitch.model import ModelManifest

CPU_BLOCK_SIZE = 128  # vLLM's own on the CPU
NOMINAL_KV_BYTES = 1 << 20
VLLM_LARGEST_GRAPH = 512  # tokens


class EngineOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The part of the config that an engine depends on; the field names are the config's."""

    n_slots: int
    max_input_tokens: int
    max_output_tokens: int
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: str = "auto"
    load_format: str = "auto"
    revision: str | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int = 8192
    num_kv_blocks: int | None = None
    enforce_eager: bool | None = None
    threads: int | None = None
    cuda_graph_sizes: list[int] | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    disable_multiprocessing: bool | Literal["auto"] = "auto"
    seed: int = 0
    vllm_options: dict[str, Any] = {}
    environment: dict[str, str] = {}


def make_spec(options: EngineOptions, model: ModelManifest) -> EngineSpec:
    """Resolve all defaults.

    Raises:
        InputError: if the engine would be asked for a longer context than the model has, or for
            cores or devices that are not there.
    """
    device = detect_device() if options.device == "auto" else options.device
    on_cpu = device == "cpu"
    refuse_fields(options.environment)
    if not on_cpu and os.environ.get(DEVICES) == "":
        raise InputError(
            f"{DEVICES} is set and empty, which hides all GPUs; unset it, or set engine.device: cpu"
        )
    if not on_cpu:
        refuse_too_few_gpus(options, usable_gpus(visible_devices()))
    max_model_len = resolve_max_model_len(options, model)
    blocks = options.num_kv_blocks
    if blocks is None and on_cpu:
        # vLLM keeps one block for itself.
        blocks = options.n_slots * -(-max_model_len // CPU_BLOCK_SIZE) + 1
    memory = None
    if on_cpu and blocks is not None:
        # Named, because vLLM would else reserve most of the machine's memory and refuse to start
        # where others use some. The pinned blocks decide; how large one is only vLLM knows.
        memory = NOMINAL_KV_BYTES
    if options.disable_multiprocessing == "auto":
        separate_core = not on_cpu
    else:
        separate_core = not options.disable_multiprocessing
    threads = None
    if on_cpu:
        threads = options.threads or default_threads(options.tensor_parallel_size)
        refuse_too_many(threads, options.tensor_parallel_size)
    eager = on_cpu if options.enforce_eager is None else options.enforce_eager
    graphs = options.cuda_graph_sizes
    if graphs is None and not eager:
        graphs = default_graph_sizes(options.n_slots)
    spec = EngineSpec(
        model=model.path,
        model_digest=model.digest,
        revision=options.revision,
        n_slots=options.n_slots,
        max_model_len=max_model_len,
        # vLLM needs room for one token of every slot.
        max_num_batched_tokens=max(options.max_num_batched_tokens, options.n_slots),
        dtype=options.dtype,
        load_format=options.load_format,
        device=device,
        threads=threads,
        visible_devices="" if on_cpu else visible_devices(),
        tensor_parallel_size=options.tensor_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        num_kv_blocks=blocks,
        kv_cache_memory_bytes=memory,
        cuda_graph_sizes=graphs,
        enforce_eager=eager,
        separate_core=separate_core,
        seed=options.seed,
        vllm_options=options.vllm_options,
        environment=tuning(os.environ) | options.environment,
        vllm_version=installed_vllm(),
        source_digest=source_digest(),
    )
    ours = llm_arguments(msgspec.structs.replace(spec, vllm_options={}))
    if taken := sorted(ours.keys() & options.vllm_options.keys()):
        raise InputError(
            f"engine.vllm_options may not set {', '.join(taken)}: pdswitch does, from keys of its "
            "own; see docs/config.md"
        )
    return spec


def refuse_too_few_gpus(options: EngineOptions, usable: int | None) -> None:
    """Refuse an engine on more GPUs than this machine lets it use.

    Args:
        options: Ray finds the GPUs of other machines by itself, so that nothing is refused.
        usable: GPUs of this machine, None if that is not known.

    Raises:
        InputError: with the remedy.
    """
    if usable is None or options.vllm_options.get("distributed_executor_backend") == "ray":
        return
    nodes = options.vllm_options.get("nnodes", 1)
    needed = -(-options.tensor_parallel_size // nodes) if isinstance(nodes, int) else 1
    if needed <= usable:
        return
    hidden = f" ({DEVICES} is {visible_devices()})" if visible_devices() else ""
    if usable == 0:
        raise InputError(
            f"no GPU can be used on this machine{hidden}; use one that has GPUs, "
            "or set engine.device: cpu"
        )
    raise InputError(
        f"tensor_parallel_size is {options.tensor_parallel_size}, which takes {needed} GPUs on "
        f"this machine, but {usable} can be used{hidden}; lower it, or use a machine with more GPUs"
    )


def default_graph_sizes(n_slots: int) -> list[int]:
    """Return the batch sizes captured as CUDA graphs by default: vLLM's own, and all up to N.

    vLLM's are 1, 2, 4, every 8th to 256, every 16th beyond, up to 2N but no further than 512 tokens
    (on Hopper; `VllmConfig._set_cudagraph_sizes`): fewer would make the mixed policy slower than it
    is there. Where N is larger they go on to N; the gap grows with the size, so that padding
    stays below an eighth and a thousand slots do not take a thousand graphs.
    """
    largest = max(n_slots, min(2 * n_slots, VLLM_LARGEST_GRAPH))
    sizes, size = {1, 2, 4, n_slots, largest}, 8
    while size < largest:
        sizes.add(size)
        size += max(8, (1 << size.bit_length()) // 32)
    return sorted(size for size in sizes if size <= largest)


def resolve_max_model_len(options: EngineOptions, model: ModelManifest) -> int:
    """Return the engine's context length in tokens: as configured, or what the requests need."""
    wanted = options.max_model_len
    if wanted is None:
        return min(model.context_length, options.max_input_tokens + options.max_output_tokens)
    if wanted > model.context_length:
        raise InputError(
            f"engine.max_model_len is {wanted}, but {model.name} has a context of "
            f"{model.context_length} tokens; lower it, or leave it out"
        )
    return wanted
