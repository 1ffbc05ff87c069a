"""Repetition loops in generated text: outputs that end in the same few tokens over and over."""

from collections.abc import Sequence

MIN_REPEATED_TOKENS = 24
MIN_REPEATS = 4
MAX_PERIOD = 32


def is_degenerate(
    token_ids: Sequence[int],
    min_repeated_tokens: int = MIN_REPEATED_TOKENS,
    min_repeats: int = MIN_REPEATS,
    max_period: int = MAX_PERIOD,
) -> bool:
    """Say whether an output ends in a repetition loop.

    It does if, for some period q ≤ `max_period`, its last tokens repeat with that period at
    least `min_repeats` times and over at least `min_repeated_tokens` tokens.

    Args:
        token_ids: the generated tokens.
        min_repeated_tokens: shortest loop that counts, in tokens.
        min_repeats: fewest repetitions that count.
        max_period: longest period looked for, in tokens.
    """
    for period in range(1, max_period + 1):
        needed = max(min_repeated_tokens, min_repeats * period)
        if needed > len(token_ids):
            continue
        tail = token_ids[len(token_ids) - needed :]
        if all(tail[i] == tail[i - period] for i in range(period, needed)):
            return True
    return False
