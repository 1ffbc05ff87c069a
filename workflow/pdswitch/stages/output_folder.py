"""Whether results can be written where the config wants them."""

import os
from pathlib import Path

from pdswitch.errors import InputError


def refuse_unusable(folder: str) -> None:
    """Check the output folder before anything is planned for it.

    Raises:
        InputError: if it cannot be one; the message says why, and the remedy.
    """
    if set(folder) & set("{}"):
        raise InputError(
            f"output_dir is {folder!r}: Snakemake takes braces for wildcards; "
            "choose a name without them"
        )
    path = Path(folder)
    existing = next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    if not existing.is_dir():
        raise InputError(f"output_dir is {folder!r}, but {existing} is no folder; choose another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"output_dir is {folder!r}, but you may not write to {existing}; choose another, "
            "or get the right to"
        )
