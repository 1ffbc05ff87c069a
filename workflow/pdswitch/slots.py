"""N*: how many slots the KV memory holds, from what is known of engine, model and lengths."""

from dataclasses import asdict
from typing import Any, Literal

import msgspec

from pdswitch.theory import kv_budget_tokens, memory_safe_slots

GB = 1e9
FEWEST_FILLS = 2  # a sweep with fewer requests than this many times N never refills


class MemoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the config that the budget depends on; the field names are the config's."""

    gpu_memory_gb: float | None
    gpu_memory_utilization: float
    tensor_parallel_size: int
    model_memory_gb: float | None
    kv_cache_bytes: int | None


class KvBudget(msgspec.Struct, frozen=True):
    """The KV memory that slots share.

    Attributes:
        blocks: KV blocks of the engine, one of which vLLM keeps for itself.
        block_size: tokens of a block.
        source: ``engine`` if vLLM resolved it, ``config`` if it was computed from sizes.
    """

    blocks: int
    block_size: int
    source: Literal["engine", "config"]

    @property
    def tokens(self) -> int:
        """C: tokens that requests can hold."""
        return (self.blocks - 1) * self.block_size


def kv_budget(options: MemoryOptions, model: dict[str, Any], engine: dict[str, Any]) -> KvBudget:
    """Return the KV budget: what the engine resolved, or what the config's sizes leave.

    Args:
        options: with `gpu_memory_gb` the budget is computed, without it the engine's is taken.
        model: content of `model.json`.
        engine: facts of an engine of this model.

    Raises:
        ValueError: if the weights' size is unknown, or they leave no room.
    """
    block_size = engine["block_size"]
    if options.gpu_memory_gb is None:
        return KvBudget(engine["num_kv_blocks"], block_size, "engine")
    weights = options.model_memory_gb and options.model_memory_gb * GB
    weights = weights or model["weight_bytes"]
    if weights is None:
        raise ValueError(
            "the size of the weights is unknown: the model's folder has none, or the hub that has "
            "them cannot be reached; "
            "set model_memory_gb, or leave gpu_memory_gb out to take what the engine finds"
        )
    tokens = kv_budget_tokens(
        options.tensor_parallel_size * options.gpu_memory_gb * GB * options.gpu_memory_utilization,
        weights,
        options.kv_cache_bytes or model["kv_bytes_per_token"],
    )
    return KvBudget(int(tokens // block_size) + 1, block_size, "config")


def safe_slots(
    budget: KvBudget,
    theory: dict[str, Any],
    termination: dict[str, Any],
    oom_tolerance: float,
    num_requests: int,
) -> dict[str, Any]:
    """Return the content of `slots.json`.

    A request's last block is half empty on average, whatever its length. The ``normal`` bound
    counts that as part of the prompt; ``published`` knows no blocks.

    Args:
        budget: KV memory.
        theory: content of a `threshold.json` of this model and dataset.
        termination: content of its `termination.json`.
        oom_tolerance: epsilon.
        num_requests: of the sweep that will run with N* slots.

    Raises:
        ValueError: if the budget holds no request, or so many that the sweep would never refill.
    """
    linear = theory["timing"]
    block = budget.block_size
    waste, waste_variance = (block - 1) / 2, (block**2 - 1) / 12

    def slots(bound: Literal["normal", "published"], waste: float, variance: float) -> Any:
        return memory_safe_slots(
            budget.tokens,
            termination["termination_probability"],
            linear["prefill"]["linear"]["alpha_p"],
            linear["decode"]["linear"]["alpha_d"],
            termination["mean_prompt_tokens"] + waste,
            termination["std_prompt_tokens"] ** 2 + variance,
            oom_tolerance,
            bound,
        )

    normal, published = slots("normal", waste, waste_variance), slots("published", 0.0, 0.0)
    if num_requests < FEWEST_FILLS * normal.n_slots:
        raise ValueError(
            f"{budget.tokens} KV tokens hold {normal.n_slots} slots, too many for a sweep of "
            f"{num_requests} requests: set num_requests to at least "
            f"{FEWEST_FILLS * normal.n_slots}, or give less memory"
        )
    return {
        "n_slots": normal.n_slots,
        "budget": msgspec.to_builtins(budget) | {"tokens": budget.tokens},
        "oom_tolerance": oom_tolerance,
        "bounds": {"normal": asdict(normal), "published": asdict(published)},
    }
