"""Prompts of the user's own, from any file or hub dataset with a column of prompts."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Message, Sample, Skipped
from pdswitch.datasets.source import Source
from pdswitch.datasets.turns import ASSISTANT, read_turn


class CustomOptions(SourceOptions):
    """Prompts of the user's own."""

    location_option = "custom_prompts"
    custom_prompts: str | None = Field(
        None, description="JSON, JSONL, CSV or Parquet file, a folder of such files, or a hub id."
    )
    prompt_column: str = Field(
        "prompt",
        min_length=1,
        description="Column of the prompts: text, or a list of messages with role and content.",
    )
    output_column: str | None = Field(None, description="Column of the answers, if there is one.")
    id_column: str | None = Field(None, description="Column of unique names, if there is one.")
    split: str = Field("train", description="Split, where the source has several.")
    subset: str | None = Field(None, description="Configuration, where the source has several.")


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
    record: Mapping[str, Any], place: int, options: CustomOptions
) -> Iterator[Sample | Skipped]:
    """Yield the request of a record, as given."""
    prompt: Any = record.get(options.prompt_column)
    answer = record.get(options.output_column) if options.output_column else None
    name = record.get(options.id_column) if options.id_column else place
    if isinstance(prompt, list) and prompt and all(map(_is_message, prompt)):
        prompt, own_answer = _divided([_without_nulls(message) for message in prompt])
        answer = own_answer if answer in (None, "") else answer
        if not prompt:
            yield Skipped("chat that is all answer")
            return
    elif not isinstance(prompt, str):
        yield Skipped("prompt that is neither text nor a list of messages")
        return
    if answer is not None and not isinstance(answer, str):
        yield Skipped("answer that is no text")
    elif name is None or name == "":
        yield Skipped("record without its id")
    else:
        # An empty answer is one that is not known.
        yield Sample(str(name) if options.id_column else f"custom-{name}", prompt, answer or None)


def _is_message(value: Any) -> bool:
    """Return whether it has a role and content; a message that calls tools needs no content."""
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        return False
    content = value.get("content")
    return isinstance(content, str) or (content is None and bool(value.get("tool_calls")))


def _divided(chat: list[Message]) -> tuple[list[Message], str | None]:
    """Return a chat up to the answer that ends it, and this answer."""
    end = len(chat)
    while end and read_turn(chat[end - 1])[0] == ASSISTANT:
        end -= 1
    answers = [message["content"] for message in chat[end:] if message.get("content")]
    return chat[:end], "\n\n".join(answers) or None


def _without_nulls(value: Any) -> Any:
    """Drop keys without a value: Arrow gives every message the keys that any of them has."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
