"""Prompts written for this project, shipped with it: works without a network."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pdswitch.datasets.options import DatasetOptions
from pdswitch.datasets.sample import Sample
from pdswitch.datasets.source import Source

PROMPTS = Path(__file__).with_name("demo_prompts.txt")
SEPARATOR = "\n----\n"


class DemoOptions(DatasetOptions):
    """Prompts that come with the package."""


def columns(options: DemoOptions) -> list[set[str]]:
    """Return what a record must have."""
    return [{"prompt"}]


def records(options: DemoOptions, source: Source | None) -> Iterable[dict[str, Any]]:
    """Return the prompts in file order."""
    text = PROMPTS.read_text(encoding="utf-8")
    return [{"prompt": prompt.strip()} for prompt in text.split(SEPARATOR)]


def samples(record: Mapping[str, Any], place: int, options: DemoOptions) -> Iterator[Sample]:
    """Yield the request of a record."""
    yield Sample(f"demo-{place + 1}", record["prompt"])
