"""LongBench, first version: 21 tasks over long contexts, in English, Chinese and code.

The hub keeps one JSON-lines file a task in `data.zip`; unpacked copies and single files of records
that name their task are read too. The tasks take turns, so that a part of the benchmark holds all.
"""

import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pdswitch.datasets.longbench_forms import FORMS
from pdswitch.datasets.options import SourceOptions
from pdswitch.datasets.records import Record, read_records
from pdswitch.datasets.sample import DatasetError, Sample, Skipped
from pdswitch.datasets.source import Source
from pdswitch.paths import local_path

ARCHIVE = "data.zip"
EVEN = "_e"  # ends the name of a task's variant with evenly distributed lengths
OPTIONAL = frozenset({"_id"})


class LongBenchV1Options(SourceOptions):
    """THUDM/LongBench: 21 tasks over long contexts."""

    location_option = "source"
    source: str = Field("THUDM/LongBench", description="Hub id, or a local copy or file of it.")
    tasks: Literal["all"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all", description="All tasks, or a list of their names."
    )
    prompt_forms: str | None = Field(
        None,
        description="JSON file, task to prompt with {context} and {input}, in place of the forms "
        "that come with the package; LongBench's own dataset2prompt.json has this shape.",
    )


def columns(options: LongBenchV1Options) -> list[set[str]]:
    """Return what a record must have."""
    return [{"context", "input", "answers", "dataset"}]


def records(options: LongBenchV1Options, source: Source) -> Iterator[Record]:
    """Yield the records of the wanted tasks, one of each in turn."""
    wanted = list(FORMS) if options.tasks == "all" else options.tasks
    unknown = [task for task in wanted if task.removesuffix(EVEN) not in _forms(options)]
    if unknown:
        raise DatasetError(
            f"tasks names {', '.join(unknown)}, which LongBench has not; use some of "
            f"{', '.join(_forms(options))}"
        )
    if source.path is not None and source.path.is_file() and source.path.suffix != ".zip":
        yield from _of_tasks(read_records(source.path, source.columns), wanted, options)
        return
    with ExitStack() as stack:
        files = _files(source, wanted, stack)
        missing = [task for task in wanted if task not in files]
        if missing and (options.tasks != "all" or not files):
            raise DatasetError(
                f"{source.location} holds neither {ARCHIVE} nor files of the tasks "
                f"{', '.join(missing)}; give the benchmark's hub id or a copy of it"
            )
        yield from _in_turns(
            [read_records(files[task], source.columns) for task in wanted if task in files]
        )


def _of_tasks(
    found: Iterable[Record], wanted: list[str], options: LongBenchV1Options
) -> Iterator[Record]:
    for record in found:
        task = None if isinstance(record, Skipped) else record.get("dataset")
        if options.tasks == "all" or task is None or task in wanted:
            yield record


def _files(source: Source, wanted: list[str], stack: ExitStack) -> dict[str, Path]:
    """Return the wanted tasks' files, unpacked for as long as the stack is open if need be."""
    unpacked = {
        task: name
        for task in wanted
        if (name := source.find([f"data/{task}.jsonl", f"{task}.jsonl"])) is not None
    }
    if unpacked:
        return {task: source.fetch(name) for task, name in unpacked.items()}
    if source.path is not None and source.path.is_file():
        archive = source.path
    elif source.find([ARCHIVE]) is not None:
        archive = source.fetch(ARCHIVE)
    else:
        return {}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="longbench-")))
    try:
        with zipfile.ZipFile(archive) as members:
            return _unpack(members, wanted, folder)
    # A damaged archive, a damaged member, a password or a compression that Python has not.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DatasetError(f"{archive} is no whole zip archive; fetch it again") from error


def _unpack(members: zipfile.ZipFile, wanted: list[str], folder: Path) -> dict[str, Path]:
    names = {Path(name).name: name for name in members.namelist()}
    found = {}
    for task in wanted:
        name = names.get(f"{task}.jsonl")
        if name is not None:
            found[task] = folder / f"{task}.jsonl"
            with members.open(name) as packed, found[task].open("wb") as file:
                shutil.copyfileobj(packed, file)
    return found


def _in_turns(sources: Sequence[Iterator[Record]]) -> Iterator[Record]:
    waiting = list(sources)
    while waiting:
        left = []
        for found in waiting:
            for record in found:
                yield record
                left.append(found)
                break
        waiting = left


def samples(
    record: Mapping[str, Any], place: int, options: LongBenchV1Options
) -> Iterator[Sample | Skipped]:
    """Yield the request of a record, in its task's form; its answer is the first of `answers`."""
    context, given, answers = record.get("context"), record.get("input"), record.get("answers")
    if not isinstance(context, str) or not isinstance(given, str):
        yield Skipped("context or input that is no text")
        return
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
        yield Skipped("answers that are no list of texts")
        return
    task = str(record.get("dataset"))
    form = _forms(options).get(task.removesuffix(EVEN))
    if form is None:
        yield Skipped("task without a prompt form")
        return
    # Not str.format: contexts are full of braces.
    before, _, after = form.partition("{context}")
    parts = [part.replace("{input}", given) for part in (before, after)]
    name = record.get("_id") or place
    yield Sample(f"longbench_v1-{task}-{name}", context.join(parts), answers[0])


def _forms(options: LongBenchV1Options) -> dict[str, str]:
    return FORMS if options.prompt_forms is None else _read_forms(options.prompt_forms)


@cache
def _read_forms(path: str) -> dict[str, str]:
    try:
        forms = json.loads((local_path(path) or Path(path)).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"prompt_forms {path} cannot be read as JSON; give a file like dataset2prompt.json"
        ) from error
    if not isinstance(forms, dict) or not all(
        isinstance(form, str) and "{context}" in form for form in forms.values()
    ):
        raise DatasetError(
            f"prompt_forms {path} is no map from tasks to texts with {{context}}; "
            "give a file like dataset2prompt.json"
        )
    return forms
