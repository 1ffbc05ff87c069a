"""From samples to `prompts.parquet`: chat template, token ids in batches, limits, manifest."""

import hashlib
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pdswitch.datasets.options import DatasetOptions
from pdswitch.datasets.sample import DatasetError, Sample, Skipped

BATCH = 1024
SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), metadata={"meaning": "name of the request, unique"}),
        pa.field("prompt", pa.string(), metadata={"meaning": "text, chat template applied"}),
        pa.field("prompt_token_ids", pa.list_(pa.int32()), metadata={"meaning": "its tokens"}),
        pa.field("prompt_tokens", pa.int32(), metadata={"meaning": "their number"}),
        pa.field(
            "reference_output_tokens",
            pa.int32(),
            metadata={"meaning": "tokens of the dataset's own answer, null where unknown"},
        ),
        pa.field("source_id", pa.string(), metadata={"meaning": "record in the source"}),
    ]
)


def samples_of(options: DatasetOptions) -> Iterator[Sample | Skipped]:
    """Yield the samples of any kind of dataset."""
    module = importlib.import_module(f"pdswitch.datasets.{options.kind}")
    found: Iterator[Sample | Skipped] = module.samples(options)
    if not options.shuffle:
        return found
    everything = list(found)
    order = np.random.default_rng(options.seed).permutation(len(everything))
    return (everything[i] for i in order)


def build_prompts(
    samples: Iterable[Sample | Skipped],
    tokenizer: Any,
    options: DatasetOptions,
    max_model_len: int,
    max_output_tokens: int,
) -> tuple[pa.Table, dict[str, Any]]:
    """Tokenize samples until enough requests are found.

    Args:
        samples: of one dataset.
        tokenizer: a fast transformers tokenizer.
        options: num_requests, max_input_tokens and enable_thinking are used here.
        max_model_len: the engine's context, tokens.
        max_output_tokens: room that every answer needs, tokens.

    Returns:
        The table, and the manifest's part that comes from the samples.

    Raises:
        DatasetError: if there are too few usable samples.
    """
    limit = min(options.max_input_tokens, max_model_len - max_output_tokens)
    skipped: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    remaining = iter(samples)
    while batch := list(islice(remaining, BATCH)):
        good = []
        for item in batch:
            if isinstance(item, Skipped):
                skipped[item.reason] += 1
            elif not item.prompt.strip():
                skipped["empty"] += 1
            else:
                good.append(item)
        for row in _tokenize(good, tokenizer, options.enable_thinking):
            if len(row["prompt_token_ids"]) > options.max_input_tokens:
                skipped["longer than max_input_tokens"] += 1
            elif len(row["prompt_token_ids"]) > limit:
                skipped["no room for the answer in the context"] += 1
            else:
                rows.append(row)
        if len(rows) >= options.num_requests:
            break
    if len(rows) < options.num_requests:
        raise DatasetError(
            f"{options.kind} has {len(rows)} usable samples, but {options.num_requests} are wanted "
            f"(num_requests plus the estimation samples); skipped: {dict(skipped) or 'none'}; "
            "lower num_requests, or raise max_input_tokens"
        )
    rows = rows[: options.num_requests]
    for number, row in enumerate(rows):
        row["request_id"] = f"r{number:06d}"
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    lengths = table["prompt_tokens"].to_numpy()
    manifest = {
        "rows": table.num_rows,
        "sha256": _digest(table),
        "skipped": dict(sorted(skipped.items())),
        "prompt_tokens": {
            "mean": float(lengths.mean()),
            "std": float(lengths.std()),
            "min": int(lengths.min()),
            "max": int(lengths.max()),
        },
        "chat_template": bool(tokenizer.chat_template),
    }
    return table, manifest


def _tokenize(
    samples: list[Sample], tokenizer: Any, enable_thinking: bool
) -> Iterator[dict[str, Any]]:
    if not samples:
        return
    if tokenizer.chat_template:
        chats = [[{"role": "user", "content": sample.prompt}] for sample in samples]
        texts = tokenizer.apply_chat_template(
            chats, tokenize=False, add_generation_prompt=True, enable_thinking=enable_thinking
        )
    else:
        texts = [sample.prompt for sample in samples]
    # The template writes its own special tokens.
    special = not tokenizer.chat_template
    token_ids = tokenizer(texts, add_special_tokens=special)["input_ids"]
    answers = [sample.reference_output for sample in samples]
    known = [answer for answer in answers if answer]
    counts = iter(
        map(len, tokenizer(known, add_special_tokens=False)["input_ids"]) if known else ()
    )
    for sample, text, ids in zip(samples, texts, token_ids, strict=True):
        yield {
            "prompt": text,
            "prompt_token_ids": ids,
            "prompt_tokens": len(ids),
            "reference_output_tokens": next(counts) if sample.reference_output else None,
            "source_id": sample.source_id,
        }


def _digest(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for row in table.select(["request_id", "prompt_token_ids"]).to_pylist():
        digest.update(f"{row['request_id']} {row['prompt_token_ids']}\n".encode())
    return digest.hexdigest()
