"""LongBench v2: a long context, a question about it, and four choices.

The samples labelled short come first, then medium, then long, because most models have room for
the short ones only. The file is read once for each label, so that it is never in memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Sample, Skipped
from pdswitch.datasets.source import Source

FILES = ("data.json",)
LABELS = ("short", "medium", "long")
CHOICES = ("A", "B", "C", "D")
PARTS = ("context", "question", *(f"choice_{letter}" for letter in CHOICES))
OPTIONAL = frozenset({"_id", "length"})


class LongBenchOptions(SourceOptions):
    """THUDM/LongBench-v2: multiple choice over a long context."""

    location_option = "source"
    source: str = Field("THUDM/LongBench-v2", description="Hub id, or a local copy or file of it.")


def columns(options: LongBenchOptions) -> list[set[str]]:
    """Return what a record must have."""
    return [{*PARTS, "answer"}]


def records(options: LongBenchOptions, source: Source) -> Iterable[Record]:
    """Return the records, the short ones first unless they are to be shuffled."""
    if options.shuffle:
        return source.records(FILES, shuffle_seed=options.stream_seed)
    return _by_label(source)


def _by_label(source: Source) -> Iterator[Record]:
    for label in LABELS:
        for record in source.records(FILES):
            # What has none of the labels is read, or skipped, in the last round.
            own = None if isinstance(record, Skipped) else record.get("length")
            if own == label or (label == LABELS[-1] and own not in LABELS):
                yield record


def samples(
    record: Mapping[str, Any], place: int, options: LongBenchOptions
) -> Iterator[Sample | Skipped]:
    """Yield the request of a record; its answer is a letter."""
    parts = [record.get(part) for part in PARTS]
    if not all(isinstance(part, str) for part in parts):
        yield Skipped("context, question or choice that is no text")
        return
    if record.get("answer") not in CHOICES:
        yield Skipped("answer that is none of A, B, C and D")
        return
    context, question, *choices = parts
    listed = "\n".join(
        f"({letter}) {choice}" for letter, choice in zip(CHOICES, choices, strict=True)
    )
    prompt = (
        f"Here is a text. Read it, then answer the question that follows it.\n\n"
        f"<text>\n{context}\n</text>\n\n"
        f"Question: {question}\n\n{listed}\n\n"
        "Reply with the letter of the right choice and nothing else."
    )
    yield Sample(f"longbench-{record.get('_id') or place}", prompt, record["answer"])
