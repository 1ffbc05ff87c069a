"""Which runs a profile makes. Pure functions; the stage serves what they plan."""

from typing import NamedTuple

import numpy as np

DECODE_STEPS = 8
MOST_SIZES = 13
PROMPT_LENGTH_FACTORS = (1, 4, 2)  # over the repeats, so that context and batch size come apart


class PlannedRun(NamedTuple):
    """A run of the profile: all its requests enter in one refill.

    Attributes:
        kind: ``prefill`` or ``decode``, what its steps are used for.
        prompt_lengths: tokens, one per request.
        output_tokens: of every request; 1 ends with the prefill.
        repeat: number of the repeat.
    """

    kind: str
    prompt_lengths: list[int]
    output_tokens: int
    repeat: int


def plan_prefill(
    n_samples: int, n_slots: int, max_tokens: int, max_prompt: int
) -> list[PlannedRun]:
    """Plan prefill steps of sizes spread evenly on a log scale from 16 to `max_tokens` tokens.

    A step's tokens are split over as few requests as prompts of `max_prompt` tokens allow, and
    over more of them towards the end, as refills of many short prompts do.
    """
    largest = min(max_tokens, n_slots * max_prompt)
    smallest = min(16, largest)
    sizes = np.unique(np.geomspace(smallest, largest, n_samples).round().astype(int))
    # Sizes that fell together at the small end are measured again.
    sizes = np.resize(sizes, n_samples)
    runs = []
    for index, tokens in enumerate(sizes.tolist()):
        needed = -(-tokens // max_prompt)
        typical = min(n_slots, max(1, tokens // 64))
        requests = max(needed, typical)
        runs.append(PlannedRun("prefill", _split(tokens, requests), 1, index))
    return runs


def plan_decode(n_repeats: int, n_slots: int, max_model_len: int) -> list[PlannedRun]:
    """Plan decode runs at the sizes of `decode_sizes`, with other prompt lengths every repeat."""
    runs = []
    for repeat in range(n_repeats):
        factor = PROMPT_LENGTH_FACTORS[repeat % len(PROMPT_LENGTH_FACTORS)]
        prompt = max(1, min(32 * factor, max_model_len - DECODE_STEPS - 1))
        runs += [
            PlannedRun("decode", [prompt] * size, DECODE_STEPS + 1, repeat)
            for size in decode_sizes(n_slots)
        ]
    return runs


def decode_sizes(n_slots: int) -> list[int]:
    """Return the batch sizes a profile visits, ascending, 1 and N among them."""
    spread = np.linspace(1, n_slots, min(MOST_SIZES, n_slots // 2 + 1)).round().astype(int)
    return sorted({1, min(2, n_slots), min(4, n_slots), n_slots, *spread.tolist()})


def plan(
    n_prefill: int,
    n_repeats: int,
    n_slots: int,
    max_tokens: int,
    max_model_len: int,
    seed: int,
) -> list[PlannedRun]:
    """Plan the whole profile, in an order that the seed shuffles, so that drift is not a trend."""
    max_prompt = max_model_len - 1
    runs = plan_prefill(n_prefill, n_slots, max_tokens, max_prompt)
    runs += plan_decode(n_repeats, n_slots, max_model_len)
    order = np.random.default_rng(seed).permutation(len(runs))
    return [runs[i] for i in order]


def _split(tokens: int, parts: int) -> list[int]:
    base, rest = divmod(tokens, parts)
    return [base + (i < rest) for i in range(parts)]
