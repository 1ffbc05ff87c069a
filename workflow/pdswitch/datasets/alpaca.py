"""Alpaca: an instruction, sometimes with an input, and a short answer.

Two forms are around: the hub's, which has everything in a `text` column besides, and the original
JSON of instruction, input and output. As in the reference the prompt is `text` up to the answer
where there is a `text`, and instruction and input otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Sample, Skipped
from pdswitch.datasets.source import Source

ANSWER_MARK = "### Response:"
OPTIONAL = frozenset({"input", "output"})


class AlpacaOptions(SourceOptions):
    """tatsu-lab/alpaca: instructions with short inputs."""

    location_option = "source"
    source: str = Field(
        "tatsu-lab/alpaca",
        description="Hub id, a local copy of it, or a file in either original form: a `text` "
        "column, or instruction, input and output.",
    )


def columns(options: AlpacaOptions) -> list[set[str]]:
    """Return what a record must have: one of these sets."""
    return [{"text"}, {"instruction", "output"}]


def records(options: AlpacaOptions, source: Source) -> Iterable[Record]:
    """Return the records in file order."""
    return source.records(shuffle_seed=options.stream_seed)


def samples(
    record: Mapping[str, Any], place: int, options: AlpacaOptions
) -> Iterator[Sample | Skipped]:
    """Yield the request of a record."""
    answer = record.get("output")
    text = record.get("text")
    if isinstance(text, str):
        prompt, mark, rest = text.partition(ANSWER_MARK)
        if not mark:
            yield Skipped(f"text without {ANSWER_MARK}")
            return
        answer = rest.strip() if answer is None else answer
    else:
        instruction, given = record.get("instruction"), record.get("input") or ""
        if not isinstance(instruction, str) or not isinstance(given, str):
            yield Skipped("instruction or input that is no text")
            return
        prompt = f"{instruction}\n\n{given}" if given.strip() else instruction
    if not isinstance(answer, str):
        yield Skipped("answer that is no text")
        return
    yield Sample(f"alpaca-{place}", prompt.strip(), answer)
