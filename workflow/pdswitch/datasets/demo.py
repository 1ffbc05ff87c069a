"""Prompts written for this project, shipped with it: works without a network."""

from collections.abc import Iterator
from pathlib import Path

from pdswitch.datasets.options import DemoOptions
from pdswitch.datasets.sample import Sample, Skipped

PROMPTS = Path(__file__).with_name("demo_prompts.txt")
SEPARATOR = "\n----\n"


def samples(options: DemoOptions) -> Iterator[Sample | Skipped]:
    """Yield the prompts in file order."""
    prompts = PROMPTS.read_text(encoding="utf-8").split(SEPARATOR)
    for number, prompt in enumerate(prompts, 1):
        yield Sample(f"demo-{number}", prompt.strip())
