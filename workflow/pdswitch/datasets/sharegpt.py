"""ShareGPT: conversations between people and chatbots; each human turn with the answer after it.

A third of the conversations begin with an answer, because long ones were cut into parts: that
answer has no question and is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from pydantic import Field

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Sample, Skipped
from pdswitch.datasets.source import Source
from pdswitch.datasets.turns import ASSISTANT, USER, read_turn

FILES = ("ShareGPT_V3_unfiltered_cleaned_split.json",)
OPTIONAL = frozenset({"id"})


class ShareGPTOptions(SourceOptions):
    """ShareGPT: each human turn with the answer after it."""

    location_option = "sharegpt_path"
    sharegpt_path: str = Field(
        "./ShareGPT_V3_unfiltered_cleaned_split.json",
        description="ShareGPT's JSON file, or a folder or hub id that holds it under this name.",
    )


def columns(options: ShareGPTOptions) -> list[set[str]]:
    """Return what a record must have."""
    return [{"conversations"}]


def records(options: ShareGPTOptions, source: Source) -> Iterable[Record]:
    """Return the conversations in file order."""
    return source.records(FILES, shuffle_seed=options.stream_seed)


def samples(
    record: Mapping[str, Any], place: int, options: ShareGPTOptions
) -> Iterator[Sample | Skipped]:
    """Yield a request for each human turn that has an answer."""
    turns = record.get("conversations")
    if not isinstance(turns, list):
        yield Skipped("conversation that is no list of turns")
        return
    name = record.get("id")
    name = place if name is None else name
    found = False
    for number, ((speaker, prompt), (next_speaker, answer)) in enumerate(
        pairwise([*map(read_turn, turns), (None, None)])
    ):
        if speaker != USER:
            continue
        found = True
        if next_speaker != ASSISTANT:
            yield Skipped("human turn without an answer")
        elif not isinstance(prompt, str) or not isinstance(answer, str):
            yield Skipped("turn that is no text")
        else:
            yield Sample(f"sharegpt-{name}-{number}", prompt, answer)
    if not found:
        yield Skipped("conversation without a human turn")
