"""N*: how many slots the KV memory holds, from what is known of engine, model and lengths."""

from dataclasses import asdict
from typing import Any, Literal

import msgspec
import numpy as np
from scipy import stats

from pdswitch.errors import InputError
from pdswitch.theory import MemorySafeSlots, memory_safe_slots
from pdswitch.theory.curves import FloatArray

GB = 1e9
QUANTILES = 400  # of lengths, which is enough for three digits of a mean
FEWEST_FILLS = 2  # a sweep with fewer requests than this many times N never refills


class MemoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of the config that the budget depends on; the field names are the config's."""

    gpu_memory_gb: float | None
    gpu_memory_utilization: float
    tensor_parallel_size: int
    model_memory_gb: float | None
    kv_cache_bytes: int | None


class KvGroup(msgspec.Struct, frozen=True):
    """Layers that keep KV cache alike: a request holds the same number of blocks of each.

    Attributes:
        kind: vLLM's name of how they keep it.
        layers: how many there are.
        block_size: tokens of a block.
        most_blocks: blocks that a request of the longest text holds.
        grows: whether a longer text needs more blocks; else it always holds `most_blocks`.
    """

    kind: str
    layers: int
    block_size: int
    most_blocks: int
    grows: bool


class KvBudget(msgspec.Struct, frozen=True):
    """The KV memory that slots share, on each device.

    Attributes:
        blocks: KV blocks of the engine, one of which vLLM keeps for itself.
        block_bytes: bytes of a block.
        groups: all draw from the same blocks.
        source: ``engine`` if vLLM resolved it, ``config`` if it was computed from sizes.
    """

    blocks: int
    block_bytes: int
    groups: list[KvGroup]
    source: Literal["engine", "config"]

    @property
    def blocks_per_token(self) -> float:
        """Blocks that a token of a short text takes, all groups together."""
        return _blocks_per_token(self.groups)

    @property
    def state_blocks(self) -> int:
        """Blocks that a slot holds whatever the length of its text."""
        return sum(group.most_blocks for group in self.groups if not group.grows)

    def described(self) -> dict[str, Any]:
        """Return its fields, and what they come to in tokens and in bytes."""
        per_token = self.blocks_per_token
        return msgspec.to_builtins(self) | {
            "tokens": int(round((self.blocks - 1) / per_token, 6)) if per_token else 0,
            "bytes_per_token": round(self.block_bytes * per_token),
            "bytes_per_slot": self.block_bytes * self.state_blocks,
        }


class _SlotNeed(msgspec.Struct, frozen=True):
    """What a slot needs: blocks for its text, the last of which is not full, and fixed ones.

    Attributes:
        per_token: blocks per token of text.
        fixed: tokens for which the fixed blocks would do.
        unfilled: mean of the tokens that the last blocks have room for beyond the text.
        unfilled_std: standard deviation of the same.
    """

    per_token: float
    fixed: float
    unfilled: float
    unfilled_std: float


def kv_budget(options: MemoryOptions, engine: dict[str, Any]) -> KvBudget:
    """Return the KV budget: what the engine resolved, or what the config's sizes leave.

    Args:
        options: with `gpu_memory_gb` the budget is computed, without it the engine's is taken.
        engine: facts of an engine of this model, with the layout of its KV memory and the size of
            its weights on a device.

    Raises:
        InputError: if the model keeps no KV cache, the weights leave no room, or their size is not
            known.
    """
    memory = engine["memory"]
    groups = msgspec.convert(memory["kv_groups"], list[KvGroup])
    if not groups:
        raise InputError(
            "the model keeps no KV cache, so memory does not bound its slots: "
            "leave out optimize_batch_size"
        )
    block_bytes = memory["kv_block_bytes"]
    if options.kv_cache_bytes is not None and (per_token := _blocks_per_token(groups)):
        block_bytes = max(
            1, round(options.kv_cache_bytes / options.tensor_parallel_size / per_token)
        )
    if options.gpu_memory_gb is None:
        return KvBudget(engine["num_kv_blocks"], block_bytes, groups, "engine")
    if options.model_memory_gb is not None:
        taken = options.model_memory_gb * GB / options.tensor_parallel_size
    elif memory["weight_bytes"] is not None:
        taken = memory["weight_bytes"] + (memory["other_bytes"] or 0)
    else:
        raise InputError(
            "vLLM measures the size of the weights on GPUs only; set model_memory_gb, or leave "
            "gpu_memory_gb out to take the KV memory that the engine has"
        )
    given = options.gpu_memory_gb * GB * options.gpu_memory_utilization
    blocks = int((given - taken) // block_bytes)
    if blocks < 2:  # vLLM keeps one
        raise InputError(
            f"the model takes {taken / GB:.3g} of {given / GB:.3g} GB on each device and leaves no "
            "KV cache; use a larger device, more of them (tensor_parallel_size), or raise "
            "gpu_memory_utilization"
        )
    return KvBudget(blocks, block_bytes, groups, "config")


def safe_slots(
    budget: KvBudget,
    theory: dict[str, Any],
    termination: dict[str, Any],
    oom_tolerance: float,
    num_requests: int,
) -> dict[str, Any]:
    """Return the content of `slots.json`.

    A request's last block is not full: half empty on average if the lengths differ by more than a
    block, emptier if texts are short against a block. A slot may also hold blocks that do not
    depend on its text. The ``normal`` bound counts both as part of the prompt, because they come
    and go with a request. ``published`` takes every block for full.

    Args:
        budget: KV memory.
        theory: content of a `threshold.json` of this model and dataset.
        termination: content of its `termination.json`.
        oom_tolerance: epsilon.
        num_requests: of the sweep that will run with N* slots.

    Raises:
        InputError: if the budget holds no request, or so many that the sweep would never refill, or
            if no slot needs more memory than another.
    """
    if not budget.blocks_per_token:
        raise InputError(
            f"every slot of this model holds {budget.state_blocks} KV blocks, whatever its text; "
            f"{(budget.blocks - 1) // budget.state_blocks} slots fit: set batch_size to at most "
            "that, and leave out optimize_batch_size"
        )
    linear = theory["timing"]

    def slots(bound: Literal["normal", "published"], need: _SlotNeed) -> MemorySafeSlots:
        unfilled = (need.unfilled, need.unfilled_std) if bound == "normal" else (0.0, 0.0)
        return memory_safe_slots(
            (budget.blocks - 1) / need.per_token,
            termination["termination_probability"],
            linear["prefill"]["linear"]["alpha_p"],
            linear["decode"]["linear"]["alpha_d"],
            termination["mean_prompt_tokens"] + need.fixed + unfilled[0],
            termination["std_prompt_tokens"] ** 2 + unfilled[1] ** 2,
            oom_tolerance,
            bound,
        )

    found, refusals = [], []
    for need in _slot_needs(budget.groups, _lengths(termination)):
        try:
            found.append((slots("normal", need), slots("published", need)))
        except InputError as refusal:  # lengths for which another bound is lower
            refusals.append(refusal)
    if not found:
        raise refusals[0]
    normal, published = max(found, key=lambda bounds: bounds[0].n_slots)
    if num_requests < FEWEST_FILLS * normal.n_slots:
        raise InputError(
            f"{budget.blocks - 1} KV blocks hold {normal.n_slots} slots, too many for a sweep of "
            f"{num_requests} requests: set num_requests to at least "
            f"{FEWEST_FILLS * normal.n_slots}, or give less memory"
        )
    return {
        "n_slots": normal.n_slots,
        "budget": budget.described(),
        "oom_tolerance": oom_tolerance,
        "bounds": {"normal": asdict(normal), "published": asdict(published)},
    }


def _slot_needs(groups: list[KvGroup], lengths: list[FloatArray]) -> list[_SlotNeed]:
    """Return upper bounds of what a slot needs, each linear in the length of its text.

    A group with a window needs blocks like one with full attention, and never more than
    `most_blocks`. Both are upper bounds; which is lower depends on the lengths. So there is one
    bound for each choice of the groups that count with `most_blocks`, those with the fewest first.
    """
    growing = [group for group in groups if group.grows]
    state = sum(group.most_blocks for group in groups if not group.grows)
    needs = []
    for limit in sorted({0, *(group.most_blocks for group in growing)}):
        linear = [group for group in growing if group.most_blocks > limit]
        if not linear:
            break
        per_token = _blocks_per_token(linear)
        fixed = state + sum(group.most_blocks for group in growing if group.most_blocks <= limit)
        # Of the same text, hence the sum of their standard deviations.
        unfilled = [_unfilled_blocks(group.block_size, lengths) for group in linear]
        mean, std = (sum(parts) / per_token for parts in zip(*unfilled, strict=True))
        needs.append(_SlotNeed(per_token, fixed / per_token, mean, std))
    return needs


def _unfilled_blocks(block_size: int, lengths: list[FloatArray]) -> tuple[float, float]:
    """Return mean and standard deviation of the part of the last block that a text leaves empty.

    Of several laws of the length, the one with the larger mean counts.
    """
    parts = [np.ceil(length / block_size) - length / block_size for length in lengths]
    return max((float(part.mean()), float(part.std())) for part in parts)


def _lengths(termination: dict[str, Any]) -> list[FloatArray]:
    """Return equally likely lengths of texts, tokens: just after their prefill, and at their end.

    As in `pdswitch.theory.peak`, prompts are gamma-shaped; answers are exponential.
    """
    mean, std = termination["mean_prompt_tokens"], termination["std_prompt_tokens"]
    chances = (np.arange(QUANTILES) + 0.5) / QUANTILES
    prompts = np.full(QUANTILES, float(mean))
    if std > 0:
        prompts = stats.gamma.ppf(chances, (mean / std) ** 2, scale=std**2 / mean)
    prompts = np.maximum(prompts, 1.0)
    answers = stats.expon.ppf(chances) / termination["termination_probability"]
    return [prompts, np.add.outer(prompts, answers).ravel()]


def _blocks_per_token(groups: list[KvGroup]) -> float:
    return sum(1 / group.block_size for group in groups if group.grows)
