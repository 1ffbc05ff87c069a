"""LMSYS-Chat-1M: the first user turn of a conversation, and the answer after it."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from pydantic import Field

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Sample, Skipped
from pdswitch.datasets.source import Source
from pdswitch.datasets.turns import ASSISTANT, USER, read_turn

OPTIONAL = frozenset({"conversation_id"})


class LmsysOptions(SourceOptions):
    """lmsys/lmsys-chat-1m: first user turn of a million conversations; gated."""

    location_option = "source"
    source: str = Field("lmsys/lmsys-chat-1m", description="Hub id, or a local copy of it.")


def columns(options: LmsysOptions) -> list[set[str]]:
    """Return what a record must have."""
    return [{"conversation"}]


def records(options: LmsysOptions, source: Source) -> Iterable[Record]:
    """Return the conversations, streamed: a shard is opened when the one before it is used up."""
    return source.records(shuffle_seed=options.stream_seed)


def samples(
    record: Mapping[str, Any], place: int, options: LmsysOptions
) -> Iterator[Sample | Skipped]:
    """Yield the request of a conversation."""
    turns = record.get("conversation")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        yield Skipped("conversation that is no list of turns")
        return
    name = record.get("conversation_id") or place
    for (speaker, prompt), (next_speaker, answer) in pairwise(
        [*map(read_turn, turns), (None, None)]
    ):
        if speaker == USER:
            if next_speaker != ASSISTANT:
                yield Skipped("user turn without an answer")
            elif not isinstance(prompt, str) or not isinstance(answer, str):
                yield Skipped("turn that is no text")
            else:
                yield Sample(f"lmsys-{name}", prompt, answer)
            return
    yield Skipped("conversation without a user turn")
