"""What lies in the memory of a device, as vLLM itself has laid it out.

vLLM cuts the KV memory into blocks of equal size. Its layers form groups, and all groups draw from
the same blocks: a request holds, of every group, the blocks that its text needs there. A group with
full attention needs more blocks the longer the text is; one with a sliding window only up to a
limit; the state of a Mamba or linear-attention layer is one block, however long the text.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec


def kv_layout(config: "VllmConfig", cache: "KVCacheConfig") -> dict[str, Any]:
    """Return how a worker's KV memory is laid out.

    Args:
        config: of the engine.
        cache: what vLLM has made of the worker's memory.

    Returns:
        `kv_block_bytes`, the bytes of a block on this device, and of each of the `kv_groups` its
        `kind` in vLLM, the number of its `layers`, `block_size` in tokens, `most_blocks`, which a
        request of the longest text holds, and whether it `grows` with the text.
    """
    # Tensors with a stride between blocks lie in each other; the others lie side by side.
    together = [tensor.size for tensor in cache.kv_cache_tensors if tensor.block_stride]
    apart = [tensor.size for tensor in cache.kv_cache_tensors if not tensor.block_stride]
    return {
        "kv_block_bytes": (max(together, default=0) + sum(apart)) // cache.num_blocks,
        "kv_groups": [
            _group(config, group.kv_cache_spec, len(group.layer_names))
            for group in cache.kv_cache_groups
        ],
    }


def _group(config: "VllmConfig", spec: "KVCacheSpec", layers: int) -> dict[str, Any]:
    from vllm.v1.kv_cache_interface import (
        ChunkedLocalAttentionSpec,
        FullAttentionSpec,
        SlidingWindowSpec,
        UniformTypeKVCacheSpecs,
    )

    one = spec
    if isinstance(spec, UniformTypeKVCacheSpecs):  # layers of one kind, with blocks of other sizes
        one = next(iter(spec.kv_cache_specs.values()))
    growing = (FullAttentionSpec, SlidingWindowSpec, ChunkedLocalAttentionSpec)
    return {
        "kind": type(one).__name__,
        "layers": layers,
        "block_size": one.block_size,
        "most_blocks": -(-spec.max_memory_usage_bytes(config) // spec.page_size_bytes),
        "grows": isinstance(one, growing),
    }


def weight_bytes(model: "Module") -> int:
    """Return the bytes of a model's parameters on this device, those that are shared once."""
    return sum(parameter.numel() * parameter.itemsize for parameter in model.parameters())


def other_bytes(worker: Any) -> int | None:
    """Return what vLLM found to be needed beside weights and KV cache; None if it did not look.

    That is activations, CUDA graphs and the runtime.

    Args:
        worker: vLLM's, of a GPU; others reserve nothing.
    """
    requested = getattr(worker, "requested_memory", None)
    free = getattr(worker, "available_kv_cache_memory_bytes", None)
    if requested is None or free is None:
        return None
    return max(0, int(requested - free) - weight_bytes(worker.get_model()))
