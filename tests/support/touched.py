"""Prints the test files with rare tests that a change touches: python touched.py COMMIT."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
RARE = re.compile(r"pytest\.mark\.(rare|slurm)\b")
# What every test may depend on.
COMMON = ("pyproject.toml", "envs/", "tests/conftest.py", "Makefile")
# What a test that runs Snakemake depends on besides.
WORKFLOW = ("Snakefile", "workflow/", "config/", "profiles/")
RUNNERS = {"checkout", "cluster"}


def touched(changed: set[str], root: Path = ROOT) -> list[str]:
    """Return the test files with rare tests that depend on one of the changed files.

    Args:
        changed: paths relative to the root.
        root: folder of the project.
    """
    graph = grimp.build_graph("pdswitch")
    affected = set(changed)
    for module in graph.modules & {_module(path) for path in changed}:
        affected |= {_file(name, root) for name in graph.find_downstream_modules(module)}
    tests = (path for path in sorted((root / "tests").rglob("test_*.py")))
    rare = (path for path in tests if RARE.search(path.read_text(encoding="utf-8")))
    return [
        str(path.relative_to(root))
        for path in rare
        if any(name.startswith(prefix) for prefix in _needs(path, root) for name in affected)
    ]


def _needs(test: Path, root: Path) -> tuple[str, ...]:
    """Return what a test depends on, as beginnings of paths."""
    own = [str(test.relative_to(root))]
    names, seen = [*_imports(test)], set()
    while names:
        name = names.pop()
        helper = root / f"tests/support/{name}.py"
        if name in seen:
            continue
        seen.add(name)
        if helper.exists():
            own.append(str(helper.relative_to(root)))
            names += _imports(helper)
        elif name.startswith("pdswitch"):
            own.append(_file(name, root))
    return (*COMMON, *own, *(WORKFLOW if RUNNERS & seen else ()))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module(path: str) -> str:
    name = path.removeprefix("workflow/").removesuffix(".py").removesuffix("/__init__")
    return name.replace("/", ".")


def _file(module: str, root: Path) -> str:
    path = f"workflow/{module.replace('.', '/')}"
    return f"{path}/__init__.py" if (root / path).is_dir() else f"{path}.py"


def main() -> None:
    command = ["git", "diff", "--name-only", sys.argv[1]]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    print(*touched(set(changed.split("\n")) - {""}), sep="\n")


if __name__ == "__main__":
    main()
