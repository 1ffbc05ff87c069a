"""ProcessBench: mathematical problems, with a solution in steps."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record
from pdswitch.datasets.sample import Sample, Skipped
from pdswitch.datasets.source import Source

OPTIONAL = frozenset({"id"})


class ProcessBenchOptions(SourceOptions):
    """Qwen/ProcessBench: mathematics, with solutions in steps."""

    location_option = "source"
    source: str = Field("Qwen/ProcessBench", description="Hub id, or a local copy or file of it.")
    processbench_split: Literal["gsm8k", "math", "olympiadbench", "omni-math"] = Field(
        "gsm8k", description="Which problems."
    )


def columns(options: ProcessBenchOptions) -> list[set[str]]:
    """Return what a record must have."""
    return [{"problem", "steps"}]


def records(options: ProcessBenchOptions, source: Source) -> Iterable[Record]:
    """Return the problems of a split in file order."""
    split = options.processbench_split.replace("-", "")  # the hub writes omnimath
    return source.records((f"{split}.json",), split=split, shuffle_seed=options.stream_seed)


def samples(
    record: Mapping[str, Any], place: int, options: ProcessBenchOptions
) -> Iterator[Sample | Skipped]:
    """Yield the request of a problem; the steps, a paragraph each, are the answer."""
    problem, steps = record.get("problem"), record.get("steps")
    if not isinstance(problem, str):
        yield Skipped("problem that is no text")
    elif not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        yield Skipped("steps that are no list of texts")
    else:
        name = record.get("id") or f"{options.processbench_split}-{place}"
        yield Sample(f"processbench-{name}", problem, "\n\n".join(steps))
