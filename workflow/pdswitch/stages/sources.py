"""Which of our own source files a stage's script runs: what Snakemake must watch for edits."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = "pdswitch"
# A job starts the engine host as a process of its own, which no import statement shows.
SPAWNED = {"pdswitch.engine.client": "pdswitch.engine.host"}


def stage_sources(root: str | Path, stage: str, *chosen: str) -> list[str]:
    """Return the script of a stage and all modules of the library it imports, directly or not.

    Args:
        root: folder of the Snakefile.
        stage: name of the script in `workflow/scripts`, without its ending.
        chosen: modules that the script imports by a name it is told, as of a dataset's loader.

    Returns:
        Paths relative to `root`, the script first, the modules sorted.

    Raises:
        FileNotFoundError: if there is no such script.
    """
    library = Path(root) / "workflow"
    script = library / "scripts" / f"{stage}.py"
    modules: set[str] = set()
    _collect(script, library, modules)
    for module in chosen:
        _add(module, library, modules)
    files = sorted(str(_file_of(module, library).relative_to(root)) for module in modules)
    return [str(script.relative_to(root)), *files]


def _collect(file: Path, library: Path, seen: set[str]) -> None:
    for name in _imports(file):
        # Importing a.b.c runs a, a.b and a.b.c.
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            _add(".".join(parts[:length]), library, seen)


def _add(module: str, library: Path, seen: set[str]) -> None:
    if module in seen or not _is_module(module, library):
        return
    seen.add(module)
    _collect(_file_of(module, library), library, seen)
    if module in SPAWNED:
        _add(SPAWNED[module], library, seen)


@cache
def _imports(file: Path) -> frozenset[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import name`: the name may be a module or something in one.
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE)


def _is_module(module: str, library: Path) -> bool:
    path = library.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _file_of(module: str, library: Path) -> Path:
    path = library.joinpath(*module.split("."))
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")
