"""Files of this machine as inputs of a rule, so that an edit of one is noticed."""

import os
from collections.abc import Iterable


def watchable(files: Iterable[str]) -> list[str]:
    """Return those that can be inputs: Snakemake takes braces in a path for wildcards."""
    return [file for file in files if not set(file) & set("{}")]


def stamps(files: Iterable[str]) -> list[list[str | int]]:
    """Return path, time in ns and size in bytes of the others, so that an edit is a new param."""
    others = sorted(file for file in {*files} if set(file) & set("{}"))
    return [[file, os.stat(file).st_mtime_ns, os.stat(file).st_size] for file in others]  # noqa: PTH116
