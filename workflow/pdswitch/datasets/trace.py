"""Traces of serving: input and output lengths; the prompts are random token ids."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Self

from pydantic import Field, model_validator

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Lengths, Skipped
from pdswitch.datasets.source import Source
from pdswitch.errors import InputError

KNOWN = (
    ("ContextTokens", "GeneratedTokens"),  # Azure LLM inference, 2023 and 2024
    ("Request tokens", "Response tokens"),  # BurstGPT
    ("input_length", "output_length"),  # Mooncake
)


class TraceOptions(SourceOptions):
    """Lengths recorded by somebody's server; the token ids are random."""

    location_option = "source"
    lengths_only = True
    source: str | None = Field(None, description="CSV or JSONL file, a folder of one, or a hub id.")
    input_column: str | None = Field(
        None,
        description="Column of the input tokens. Default: as Azure, BurstGPT or Mooncake name it.",
    )
    output_column: str | None = Field(None, description="Column of the output tokens.")

    @model_validator(mode="after")
    def _names_both_columns(self) -> Self:
        if (self.input_column is None) != (self.output_column is None):
            raise InputError(
                "input_column and output_column go together; give both, or neither for a trace of "
                "Azure, BurstGPT or Mooncake"
            )
        return self


def columns(options: TraceOptions) -> list[set[str]]:
    """Return what a record must have: one of these pairs."""
    return [set(pair) for pair in _pairs(options)]


def records(options: TraceOptions, source: Source) -> Iterable[Record]:
    """Return the records in file order."""
    return source.records(shuffle_seed=options.stream_seed)


def samples(
    record: Mapping[str, Any], place: int, options: TraceOptions
) -> Iterator[Lengths | Skipped]:
    """Yield the request of a record."""
    for input_column, output_column in _pairs(options):
        if input_column in record and output_column in record:
            sizes = _tokens(record[input_column]), _tokens(record[output_column])
            break
    else:
        sizes = None, None
    prompt_tokens, output_tokens = sizes
    if prompt_tokens is None or output_tokens is None:
        yield Skipped("length that is no whole number")
    elif prompt_tokens < 1:
        yield Skipped("prompt of no tokens")
    elif output_tokens < 1:
        yield Skipped("answer of no tokens")  # BurstGPT's failed requests
    else:
        yield Lengths(f"trace-{place}", prompt_tokens, output_tokens, place)


def _pairs(options: TraceOptions) -> Iterable[tuple[str, str]]:
    if options.input_column is None or options.output_column is None:
        return KNOWN
    return [(options.input_column, options.output_column)]


def _tokens(value: Any) -> int | None:
    # CSV gives text; exports of data frames write 374.0 for 374.
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None
