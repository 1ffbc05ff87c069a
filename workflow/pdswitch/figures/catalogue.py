"""All figures: every module of this folder that defines `draw` and `caption`.

Importing this module imports none of them: the Snakefile reads the list at every call.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pdswitch.catalogue import Entry, entries
from pdswitch.errors import InputError
from pdswitch.files import read_json

# What a figure can be drawn from, by the name that a parameter of its `draw` has: where the file
# lies, seen from the folder of a dataset's results.
RESULT_FILES = {
    "results": "{dataset}_results.json",
    "timeline": "pd_timeline_{dataset}.json",
    "threshold": "threshold.json",
    "termination": "termination/termination.json",
    "requests": "termination/requests.parquet",
    "prompts": "../prompts.parquet",
    "steps": "../../profile/N={n}/steps.parquet",
}
# Texts and token ids would fill the memory, and no figure shows them.
LEFT_OUT = {"prompt", "prompt_token_ids", "text", "output_token_ids"}


@dataclass(frozen=True)
class FigureEntry:
    """What is known of a figure before its module is imported.

    Attributes:
        name: of its module, and the ending of its files.
        module: to import it by.
        parameters: of its `draw`: `dataset`, or a name in `RESULT_FILES`.
        settings: keys of the config that Snakemake's own report prints under it.
    """

    name: str
    module: str
    parameters: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The result files that it is drawn from, in order."""
        return tuple(name for name in self.parameters if name != "dataset")

    def draw(self, dataset: str, files: list[Path]) -> Any:
        """Draw it from its input files and return the matplotlib figure."""
        known = {name: _read(path) for name, path in zip(self.inputs, files, strict=True)}
        known["dataset"] = dataset
        draw = import_module(self.module).draw
        return draw(**{name: known[name] for name in self.parameters})

    def caption(self, results: dict[str, Any]) -> str:
        """Return what both reports say under it.

        Args:
            results: content of `{dataset}_results.json`.
        """
        return str(import_module(self.module).caption(results))


def figures() -> dict[str, FigureEntry]:
    """Return all figures by name, in the order of the report.

    Raises:
        InputError: if a figure asks for a file that does not exist.
    """
    found = entries("figures", "draw", "caption")
    return {name: _figure(name, entry) for name, entry in found.items()}


def _figure(name: str, entry: Entry) -> FigureEntry:
    parameters = entry.parameters["draw"]
    unknown = sorted({*parameters} - {"dataset", *RESULT_FILES})
    if unknown:
        raise InputError(
            f"figures/{name}.py draws from {', '.join(unknown)}, which is no result file; "
            f"use {', '.join(RESULT_FILES)}, or dataset for its name"
        )
    return FigureEntry(name, entry.module, parameters, tuple(entry.literals.get("SETTINGS", ())))


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return read_json(path)
    # Imported here: the Snakefile reads the list at every call.
    import pandas as pd
    import pyarrow.parquet as pq

    columns = [name for name in pq.read_schema(path).names if name not in LEFT_OUT]
    return pd.read_parquet(path, columns=columns)
