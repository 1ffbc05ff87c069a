"""Alpaca: an instruction, sometimes with an input, and a short answer.

Two forms are around: the hub's, with everything in a `text` column, and the original JSON of
instruction, input and output. Both give the same prompts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pdswitch.datasets.options import AlpacaOptions
from pdswitch.datasets.sample import DatasetError, Sample, Skipped

ANSWER_MARK = "### Response:"


def samples(options: AlpacaOptions) -> Iterator[Sample | Skipped]:
    """Yield the records in file order.

    Raises:
        DatasetError: if the source cannot be read, or has neither form.
    """
    path = Path(options.source).expanduser()
    records = _local(path) if path.exists() else _hub(options)
    for number, record in enumerate(records):
        yield _sample(f"alpaca-{number}", record)


def _sample(source_id: str, record: Mapping[str, Any]) -> Sample | Skipped:
    if record.get("instruction"):
        instruction, given = record["instruction"], record.get("input") or ""
        if not isinstance(instruction, str) or not isinstance(given, str):
            return Skipped(source_id, "not text")
        prompt = f"{instruction}\n\n{given}" if given.strip() else instruction
        answer = record.get("output")
        return Sample(source_id, prompt, answer if isinstance(answer, str) else None)
    text = record.get("text")
    if isinstance(text, str) and text.strip():
        prompt, mark, answer = text.partition(ANSWER_MARK)
        return Sample(source_id, prompt.strip(), answer.strip() if mark else None)
    return Skipped(source_id, "empty")


def _local(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text; give Alpaca's JSON file") from error
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path} is not valid JSON (line {error.lineno}: {error.msg}); "
            "it may be cut short, fetch it again"
        ) from error
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{path} holds no list of records; give Alpaca's JSON file")
    first = content[0]
    if not isinstance(first, dict) or not ({"instruction", "text"} & first.keys()):
        raise DatasetError(
            f"{path} has neither an `instruction` nor a `text` column; give Alpaca's JSON file"
        )
    return content


def _hub(options: AlpacaOptions) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    try:
        return load_dataset(
            options.source, split="train", revision=options.revision, streaming=True
        )
    except Exception as error:  # the hub's client raises many kinds; all mean the same to a user
        raise DatasetError(
            f"{options.source} is neither a local file nor a data set that can be fetched "
            f"({type(error).__name__}); set datasets.alpaca.source to a local copy"
        ) from error
