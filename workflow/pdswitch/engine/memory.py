"""What lies in the memory of a device, as vLLM itself has laid it out.

vLLM cuts the KV memory into blocks of equal size. Its layers form groups, and all groups draw from
the same blocks: a request holds, of every group, the blocks that its text needs there. A group with
full attention needs more blocks the longer the text is; one with a sliding window only up to a
limit; the state of a Mamba or linear-attention layer is one block, however long the text.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def model_bytes(worker: Any) -> dict[str, int | None]:
    """Return what a worker's device holds beside KV cache, as vLLM has measured it.

    Args:
        worker: vLLM's. One on a CPU measures nothing: it packs weights so that none can be counted.

    Returns:
        `weight_bytes`, and `other_bytes` of activations, CUDA graphs and the runtime; None for what
        vLLM did not measure.
    """
    weights = getattr(worker.model_runner, "model_memory_usage", None)
    if weights is None:
        return {"weight_bytes": None, "other_bytes": None}
    requested = getattr(worker, "requested_memory", None)
    free = getattr(worker, "available_kv_cache_memory_bytes", None)
    other = None
    if requested is not None and free is not None:
        other = max(0, int(requested - free - weights))
    return {"weight_bytes": int(weights), "other_bytes": other}
