"""From a dataset's options to its requests in text: every kind of dataset through one door."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from pdswitch.datasets.options import DatasetOptions, SourceOptions, loader_module
from pdswitch.datasets.order import shuffled, shuffled_in_windows
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import (
    MOST_TOKENS,
    DatasetError,
    Lengths,
    Outcome,
    Skipped,
    text_flaw,
)
from pdswitch.datasets.source import Source, Stream, open_source

# Records among which at least one must have the right columns.
PROBE = 100
# Characters of a column's name in a message: what is no table may begin with anything.
MOST_OF_A_NAME = 40


class Loader(Protocol):
    """What a dataset's module has.

    Attributes:
        OPTIONAL: columns that a record may have, none by default; nothing besides these and
            `columns` is read.
    """

    OPTIONAL: frozenset[str]

    def columns(self, options: DatasetOptions) -> list[set[str]]:
        """Return sets of columns; a record needs all of one set."""

    def records(self, options: DatasetOptions, source: Source | None) -> Iterable[Record]:
        """Return the records in order."""

    def samples(
        self, record: Mapping[str, Any], place: int, options: DatasetOptions
    ) -> Iterable[Outcome]:
        """Yield the requests of a record, or why it is none; `place` counts records from 0."""


def load(options: DatasetOptions) -> tuple[Iterator[Outcome], str | None]:
    """Open a dataset.

    Args:
        options: of any kind of dataset.

    Returns:
        Its requests, and the commit of the hub repository they come from, None for others. What
        is wrong with the source shows when they are read, as a DatasetError.

    Raises:
        DatasetError: if the source cannot be found.
    """
    loader: Any = importlib.import_module(loader_module(options.kind))
    source = None
    if isinstance(options, SourceOptions) and options.location is not None:
        optional: frozenset[str] = getattr(loader, "OPTIONAL", frozenset())
        columns = optional.union(*loader.columns(options))
        source = open_source(options.location, options.revision, columns)
    first = loader.records(options, source)
    found = _outcomes(first, loader, options)
    if options.shuffle and isinstance(first, Stream):
        found = shuffled_in_windows(found, options.seed)
    elif options.shuffle:
        found = shuffled(
            lambda: _outcomes(loader.records(options, source), loader, options), options.seed
        )
    return _distinct(found), None if source is None else source.revision


def _outcomes(
    records: Iterable[Record], loader: Loader, options: DatasetOptions
) -> Iterator[Outcome]:
    name = options.location or options.kind
    for place, record in enumerate(_with_columns(records, loader.columns(options), name)):
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            found = [_checked(outcome) for outcome in loader.samples(record, place, options)]
        except RecursionError:
            found = [Skipped("record nested too deeply")]
        yield from found


def _with_columns(records: Iterable[Record], wanted: list[set[str]], name: str) -> Iterator[Record]:
    """Pass records on, but not many if none of them has the columns of a request."""
    found = False
    have: set[str] = set()
    count = 0
    for count, record in enumerate(records, 1):
        if not found and not isinstance(record, Skipped):
            have |= {" ".join(str(column).split())[:MOST_OF_A_NAME] for column in record}
            found = any(columns <= record.keys() for columns in wanted)
        if not found and count == PROBE:
            raise _wrong_columns(name, wanted, have)
        yield record
    if count == 0:
        raise DatasetError(f"{name} holds no records; check the file, or split and subset")
    if not found:
        raise _wrong_columns(name, wanted, have)


def _wrong_columns(name: str, wanted: list[set[str]], have: set[str]) -> DatasetError:
    needed = " or ".join(", ".join(sorted(columns)) for columns in wanted)
    there = ", ".join(sorted(have)[:20]) or "no columns"
    return DatasetError(f"{name} has {there}, but needs {needed}; name the right columns or file")


def _checked(outcome: Outcome) -> Outcome:
    """Return the outcome, or why it cannot be a request: one bad text spoils its own alone."""
    if isinstance(outcome, Skipped):
        return outcome
    if isinstance(outcome, Lengths):
        if max(outcome.prompt_tokens, outcome.output_tokens) > MOST_TOKENS:
            return Skipped(f"length above {MOST_TOKENS:,} tokens")
        return outcome
    prompt = outcome.prompt
    texts = [outcome.source_id]
    if isinstance(prompt, str):
        texts.append(prompt)
    else:
        # A message that calls tools may say nothing, and many a system message does.
        texts += [
            message["content"]
            for message in prompt
            if message.get("content")
            or (message["role"] != "system" and "tool_calls" not in message)
        ]
    if outcome.reference_output is not None:
        texts.append(outcome.reference_output)
    for text in texts:
        flaw = text_flaw(text)
        if flaw is not None:
            return Skipped(flaw)
    return outcome


def _distinct(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    seen = set()
    for outcome in outcomes:
        if isinstance(outcome, Skipped):
            yield outcome
        elif outcome.source_id in seen:
            yield Skipped("id that is there already")
        else:
            seen.add(outcome.source_id)
            yield outcome
