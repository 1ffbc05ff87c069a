"""The command `pdswitch`: each module here is a subcommand of the same name.

A subcommand has `add_arguments(parser)`, `run(options)`, which returns the exit status, and
`EXTRA`, the extra of the package that brings what it needs. Its docstring is its help. It imports
the rest of this library only in `run`, so that help and mistakes are answered at once.
"""

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

from pdswitch.errors import InputError
from pdswitch.stages.entry import stage


@stage
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `pdswitch …`; returns the exit status."""
    status = 0
    try:
        match sys.argv[1:] if arguments is None else list(arguments):
            case [] | ["-h" | "--help", *_]:
                print(overview())
            case ["--version", *_]:
                print(f"pdswitch {metadata.version('pdswitch')}")
            case [name, *rest]:
                status = run(name, rest)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, `head` for example, has enough. Python flushes once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    return status


def run(name: str, arguments: Sequence[str], program: str | None = None) -> int:
    """Run a subcommand; returns the exit status.

    Args:
        name: of the subcommand.
        arguments: what follows the name on the command line.
        program: what the help calls the command; None for ``pdswitch NAME``.

    Raises:
        InputError: if there is no such subcommand, a library that it needs is not installed, or
            it refuses its arguments.
    """
    if name not in names():
        raise InputError(f"pdswitch has no command {name!r}; use one of {', '.join(names())}")
    command = load(name)
    parser = argparse.ArgumentParser(
        prog=program or f"pdswitch {name}", description=command.__doc__
    )
    command.add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        status: int = command.run(options)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in {"", "pdswitch", *sys.stdlib_module_names}:
            raise
        raise InputError(
            f"pdswitch {name} needs {library}, which is not installed; "
            f"run: pip install 'pdswitch[{command.EXTRA}]'"
        ) from error
    return status


def names() -> list[str]:
    """Return the names of the subcommands, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """Import a subcommand's module."""
    return import_module(f"{__name__}.{name}")


def overview() -> str:
    """Return the help of `pdswitch` itself, with a line for every subcommand."""
    helps = {name: load(name).__doc__.partition("\n")[0] for name in names()}
    width = max(map(len, helps))
    return "\n".join(
        [
            "usage: pdswitch COMMAND [ARGUMENTS]",
            "       pdswitch --version",
            "",
            *(f"  {name:<{width}}  {line}" for name, line in helps.items()),
            "",
            "pdswitch COMMAND --help describes a command.",
        ]
    )
