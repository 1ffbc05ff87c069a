"""Prompts of the user's own, from any file or hub dataset with a column of prompts."""

from collections.abc import Iterable, Iterator
from typing import Any

from pdswitch.datasets.options import CustomOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Sample, Skipped
from pdswitch.datasets.source import Source


def columns(options: CustomOptions) -> list[set[str]]:
    """Return what a record must have."""
    named = (options.prompt_column, options.output_column, options.id_column)
    return [{name for name in named if name is not None}]


def records(options: CustomOptions, source: Source) -> Iterable[Record]:
    """Return the records in file order."""
    return source.records(
        split=options.split, subset=options.subset, shuffle_seed=options.stream_seed
    )


def samples(
    record: dict[str, Any], place: int, options: CustomOptions
) -> Iterator[Sample | Skipped]:
    """Yield the request of a record, as given."""
    prompt: Any = record.get(options.prompt_column)
    answer = record.get(options.output_column) if options.output_column else None
    name = record.get(options.id_column) if options.id_column else place
    if not isinstance(prompt, str) and not _is_chat(prompt):
        yield Skipped("prompt that is neither text nor a list of messages")
    elif answer is not None and not isinstance(answer, str):
        yield Skipped("answer that is no text")
    elif name is None or name == "":
        yield Skipped("record without its id")
    else:
        # An empty answer is one that is not known.
        yield Sample(str(name) if options.id_column else f"custom-{name}", prompt, answer or None)


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in value
        )
    )
