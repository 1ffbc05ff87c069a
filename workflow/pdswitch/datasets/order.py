"""Shuffles that hold little in memory: of files of any size, and of streams."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import numpy as np

from pdswitch.datasets.sample import Lengths, Outcome, Sample

# Records and characters kept at a time; the rest is read again when they are used up.
MOST_KEPT = 20_000
MOST_CHARACTERS = 20_000_000
KEYS_AT_A_TIME = 4096
WINDOW = 10_000


def shuffled(
    read: Callable[[], Iterable[Outcome]],
    seed: int,
    most_kept: int = MOST_KEPT,
    most_characters: int = MOST_CHARACTERS,
) -> Iterator[Outcome]:
    """Yield what a source gives in an order that depends on the seed alone.

    Every record gets a random key, and they come in the order of their keys. One pass over the
    source keeps those with the smallest keys only, the next pass those that follow; so the order
    does not depend on how many are kept, nor on how many are taken.

    Args:
        read: begins the source anew; it gives the same records each time.
        seed: of the order.
        most_kept: records held in memory.
        most_characters: size of the records held in memory; a single one may be larger.
    """
    done = (-1.0, -1)
    while True:
        # The largest key is on top of the heap, where it is the first to be given up.
        kept: list[tuple[float, int, Outcome]] = []
        characters, left_over = 0, False
        for number, (key, outcome) in enumerate(zip(_keys(seed), read(), strict=False)):
            if (key, number) <= done:
                continue
            if left_over and kept and (key, number) > (-kept[0][0], -kept[0][1]):
                continue
            heapq.heappush(kept, (-key, -number, outcome))
            characters += size_of(outcome)
            while len(kept) > most_kept or (characters > most_characters and len(kept) > 1):
                characters -= size_of(heapq.heappop(kept)[2])
                left_over = True
        kept.sort(key=lambda item: (-item[0], -item[1]))
        yield from (outcome for _, _, outcome in kept)
        if not left_over:
            return
        done = (-kept[-1][0], -kept[-1][1])


def shuffled_in_windows(
    outcomes: Iterable[Outcome],
    seed: int,
    window: int = WINDOW,
    most_characters: int = MOST_CHARACTERS,
) -> Iterator[Outcome]:
    """Yield what a stream gives, shuffled within windows of records; no more is read than needed.

    Args:
        outcomes: a source that is too long to be read to its end.
        seed: of the order.
        window: records shuffled together.
        most_characters: a window ends before, once its records have this size.
    """
    random = np.random.default_rng(seed)
    kept: list[Outcome] = []
    characters = 0
    for outcome in outcomes:
        kept.append(outcome)
        characters += size_of(outcome)
        if len(kept) == window or characters > most_characters:
            yield from (kept[i] for i in random.permutation(len(kept)))
            kept, characters = [], 0
    yield from (kept[i] for i in random.permutation(len(kept)))


def _keys(seed: int) -> Iterator[float]:
    random = np.random.default_rng(seed)
    for _ in count():
        yield from random.random(KEYS_AT_A_TIME).tolist()


def size_of(outcome: Outcome) -> int:
    """Return about how much memory a record takes, characters."""
    if isinstance(outcome, Sample):
        prompt = outcome.prompt
        text = len(prompt) if isinstance(prompt, str) else sum(len(str(m)) for m in prompt)
        return text + len(outcome.reference_output or "")
    return 24 if isinstance(outcome, Lengths) else 8
