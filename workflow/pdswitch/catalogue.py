"""Finds the modules of a folder by what they define, without importing them.

So a figure, an estimator or a dataset is one file: whoever lists them asks here. The config and the
Snakefile load at every call of Snakemake, and must not import matplotlib for a list of names.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parent
LAST = 1_000


@dataclass(frozen=True)
class Entry:
    """A module as its text shows it.

    Attributes:
        module: its name, to import it by.
        parameters: names of the parameters of each function at its top level.
        literals: the constants at its top level that are plain values.
    """

    module: str
    parameters: dict[str, tuple[str, ...]]
    literals: dict[str, Any]


@cache
def modules(package: str, *functions: str) -> list[Path]:
    """Return the files of a package that define all of these functions, sorted."""
    return [
        file
        for file in sorted((LIBRARY / package).glob("*.py"))
        if (text := file.read_text(encoding="utf-8"))
        and all(f"\ndef {name}(" in text for name in functions)
    ]


@cache
def entries(package: str, *functions: str) -> dict[str, Entry]:
    """Return the modules of a package that define all of these functions, by name.

    In the order of their constant PLACE; those without one come last, sorted.

    Args:
        package: of the library, as `figures`.
        functions: names of functions at a module's top level.
    """
    found = {
        file.stem: _entry(
            f"pdswitch.{package}.{file.stem}", ast.parse(file.read_bytes(), str(file))
        )
        for file in modules(package, *functions)
    }
    places = {name: entry.literals.get("PLACE", LAST) for name, entry in found.items()}
    return dict(sorted(found.items(), key=lambda item: (places[item[0]], item[0])))


def _entry(module: str, tree: ast.Module) -> Entry:
    parameters = {
        node.name: tuple(argument.arg for argument in node.args.args)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    literals = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                literals[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:  # not a plain value
                continue
    return Entry(module, parameters, literals)
