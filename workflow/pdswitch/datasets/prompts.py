"""From requests in text to `prompts.parquet`: token ids in batches, limits, digest, manifest."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pdswitch.datasets.encoding import REFUSED_CHAT, REFUSED_TEXT, UNTEMPLATED, Encoder
from pdswitch.datasets.options import DatasetOptions
from pdswitch.datasets.order import size_of
from pdswitch.datasets.sample import (
    NOT_UNICODE,
    DatasetError,
    Lengths,
    Outcome,
    Sample,
    Skipped,
)
from pdswitch.datasets.summary import Digest, length_statistics
from pdswitch.files import atomic_path

BATCH = 1024
BATCH_CHARACTERS = 4_000_000
TOO_LONG = Skipped("longer than max_input_tokens")
NO_ROOM = Skipped("no room for the answer in the model's context")
NO_TOKENS = Skipped("prompt of no tokens")
# What to do about some reasons, where they leave too few requests.
ADVICE = {
    REFUSED_CHAT: "use a model whose chat template takes such chats",
    REFUSED_TEXT: "set apply_chat_template: false to send plain text",
    UNTEMPLATED.reason: "use a model that has a chat template",
    NOT_UNICODE: "convert the source to UTF-8",
}
# Before the first request is found: no source needs to be read to its end for such a mistake.
MOST_REFUSED = 10_000
SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), metadata={"meaning": "name of the request, unique"}),
        pa.field(
            "prompt",
            pa.string(),
            metadata={"meaning": "text, chat template applied; empty for random token ids"},
        ),
        pa.field(
            "prompt_token_ids",
            pa.list_(pa.field("element", pa.int32())),
            metadata={"meaning": "token ids of the prompt, special ones included"},
        ),
        pa.field("prompt_tokens", pa.int32(), metadata={"meaning": "number of those, tokens"}),
        pa.field(
            "reference_output_tokens",
            pa.int32(),
            metadata={"meaning": "length of the dataset's own answer, tokens; null if unknown"},
        ),
        pa.field("source_id", pa.string(), metadata={"meaning": "record in the source"}),
    ],
    metadata={"content": "requests of one dataset, in the order they are served"},
)


@dataclass(frozen=True)
class Limits:
    """How many requests are wanted, and how long one may be.

    Attributes:
        num_requests: wanted in all.
        longest: tokens of the longest prompt that is not skipped.
        too_long: what becomes of a longer one; names the limit that binds.
        reuse: whether requests are used again where there are too few.
    """

    num_requests: int
    longest: int
    too_long: Skipped
    reuse: bool = False


def limits_of(options: DatasetOptions, max_model_len: int | None, max_output_tokens: int) -> Limits:
    """Return the limits that follow from the options and the engine.

    Args:
        options: num_requests, max_input_tokens and reuse_requests are used.
        max_model_len: the engine's context, tokens; None if it sets no limit.
        max_output_tokens: room that every answer needs in the context, tokens.

    Raises:
        DatasetError: if the answer leaves no room for a prompt.
    """
    longest, too_long = options.max_input_tokens, TOO_LONG
    if max_model_len is not None and max_model_len - max_output_tokens < longest:
        longest, too_long = max_model_len - max_output_tokens, NO_ROOM
    if longest < 1:
        raise DatasetError(
            f"max_output_tokens ({max_output_tokens}) leaves no room for a prompt in a context of "
            f"{max_model_len} tokens; lower it"
        )
    return Limits(options.num_requests, longest, too_long, options.reuse_requests)


@dataclass(frozen=True)
class Row:
    """One request with its tokens."""

    prompt: str
    token_ids: list[int] | NDArray[np.int32]
    output_tokens: int | None
    source_id: str


def write_prompts(
    path: Path,
    outcomes: Iterable[Outcome],
    encoder: Encoder,
    limits: Limits,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Tokenize requests until enough are found, and write them as they come.

    Args:
        path: the Parquet file, written aside and renamed at the end.
        outcomes: of one dataset, in order; no more of them are read than needed.
        encoder: of the model.
        limits: what is wanted and what is too long.
        seed: of random token ids.
        progress: told how many requests each batch added.

    Returns:
        The manifest's part that comes from the requests: rows, how many of them are others used
        again, sha256, skipped, statistics.

    Raises:
        DatasetError: if there are too few, or the source is bad; then nothing is written.
    """
    skipped: Counter[str] = Counter()
    details: dict[str, str] = {}
    # What may be used again stays in memory.
    first: list[pa.Table] = []
    remaining = iter(outcomes)
    with atomic_path(path) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        written = _Written(writer, progress)
        while written.rows < limits.num_requests:
            batch = _next_batch(remaining, limits.num_requests - written.rows)
            if not batch:
                break
            chosen = []
            for result in _encoded(batch, encoder, limits, seed):
                if isinstance(result, Skipped):
                    skipped[result.reason] += 1
                    details.setdefault(result.reason, result.detail)
                else:
                    chosen.append(result)
            if chosen:
                table = _table(chosen, written.rows)
                written.add(table)
                first += [table] * limits.reuse
            elif not written.rows and sum(skipped[reason] for reason in ADVICE) > MOST_REFUSED:
                break
        reused = limits.num_requests - written.rows
        if reused and not first:
            raise _too_few(written.rows, limits, skipped, details)
        while written.rows < limits.num_requests:
            written.add(_again(pa.concat_tables(first), written.rows, limits.num_requests))
    return {
        "rows": written.rows,
        "reused": reused,
        "sha256": written.digest.hexdigest(),
        "skipped": dict(sorted(skipped.items())),
        **length_statistics(written.prompt_lengths, written.output_lengths),
    }


class _Written:
    """The rows written so far, and what the manifest says of them."""

    def __init__(self, writer: pq.ParquetWriter, progress: Callable[[int], Any]) -> None:
        self._writer, self._progress = writer, progress
        self.digest, self.rows = Digest(), 0
        self.prompt_lengths: list[int] = []
        self.output_lengths: list[int | None] = []

    def add(self, table: pa.Table) -> None:
        self._writer.write_table(table)
        self.digest.update(table)
        self.rows += len(table)
        self.prompt_lengths += table["prompt_tokens"].to_pylist()
        self.output_lengths += table["reference_output_tokens"].to_pylist()
        self._progress(len(table))


def _next_batch(outcomes: Iterator[Outcome], wanted: int) -> list[Outcome]:
    """Take outcomes with at most as many requests as are wanted, so that none is read in vain."""
    batch: list[Outcome] = []
    requests = characters = 0
    for outcome in outcomes:
        batch.append(outcome)
        characters += size_of(outcome)
        requests += not isinstance(outcome, Skipped)
        if requests == wanted or len(batch) == BATCH or characters > BATCH_CHARACTERS:
            break
    return batch


def _encoded(
    batch: list[Outcome], encoder: Encoder, limits: Limits, seed: int
) -> Iterator[Row | Skipped]:
    """Yield what becomes of each outcome, in order."""
    samples = [outcome for outcome in batch if isinstance(outcome, Sample)]
    seen = encoder.texts([sample.prompt for sample in samples])
    texts = [text for text in seen if isinstance(text, str)]
    longer = encoder.surely_longer(texts, limits.longest)
    encoded = iter(
        encoder.token_ids([text for text, long in zip(texts, longer, strict=True) if not long])
    )
    answers = [
        sample.reference_output
        for sample, text in zip(samples, seen, strict=True)
        if isinstance(text, str) and sample.reference_output is not None
    ]
    output_tokens = iter(encoder.lengths(answers))
    prepared, are_longer = iter(seen), iter(longer)
    for outcome in batch:
        if isinstance(outcome, Skipped):
            yield outcome
        elif isinstance(outcome, Lengths):
            if outcome.prompt_tokens > limits.longest:
                yield limits.too_long
            else:
                ids = encoder.random_ids(outcome.prompt_tokens, seed, outcome.number)
                yield Row("", ids, outcome.output_tokens, outcome.source_id)
        else:
            text = next(prepared)
            if isinstance(text, Skipped):
                yield text
                continue
            long = next(are_longer)
            tokens = None if outcome.reference_output is None else next(output_tokens)
            token_ids = [] if long else next(encoded)
            if long or len(token_ids) > limits.longest:
                yield limits.too_long
            elif not token_ids:
                yield NO_TOKENS
            else:
                yield Row(text, token_ids, tokens, outcome.source_id)


def _again(table: pa.Table, rows: int, wanted: int) -> pa.Table:
    """Return the first rows of a table under the names of the next requests."""
    again = table.slice(0, wanted - rows)
    names = pa.array(_request_ids(rows, len(again)), pa.string())
    return again.set_column(0, SCHEMA.field("request_id"), names)


def _request_ids(first: int, count: int) -> list[str]:
    return [f"r{number:06d}" for number in range(first, first + count)]


def _table(rows: list[Row], first: int) -> pa.Table:
    columns = [
        _request_ids(first, len(rows)),
        [row.prompt for row in rows],
        [row.token_ids for row in rows],
        [len(row.token_ids) for row in rows],
        [row.output_tokens for row in rows],
        [row.source_id for row in rows],
    ]
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


def _too_few(
    rows: int, limits: Limits, skipped: Counter[str], details: dict[str, str]
) -> DatasetError:
    reasons = ", ".join(
        f"{reason} ({count}{', first: ' + details[reason] if details.get(reason) else ''})"
        for reason, count in sorted(skipped.items())
    )
    remedies = ["check the source"]
    if rows:
        remedies = [
            f"lower num_requests by {limits.num_requests - rows}",
            "set reuse_requests: true to use requests more than once",
        ]
    remedies += [advice for reason, advice in ADVICE.items() if reason in skipped]
    if limits.too_long.reason in skipped:
        remedies.append(f"raise the limit that left requests out ({limits.longest} tokens)")
    *others, last = remedies
    return DatasetError(
        f"there are {rows} usable requests, but {limits.num_requests} are wanted (num_requests and "
        f"the estimation samples); skipped: {reasons or 'none'}; "
        + (f"{', '.join(others)}, or {last}" if others else last)
    )
