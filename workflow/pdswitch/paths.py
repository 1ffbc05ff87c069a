"""What a path in the config means."""

import os
from pathlib import Path


def local_path(name: str) -> Path | None:
    """Return what is there under a name, as it stands or with `~` as a home folder; else None.

    A name is no pattern: brackets, braces and a `~` that begins no home folder are themselves.
    """
    # Unlike pathlib's these take any text: too long for a path, with a NUL byte, `~nobody`.
    paths = (name, os.path.expanduser(name))  # noqa: PTH111
    return next((Path(path) for path in paths if os.path.exists(path)), None)  # noqa: PTH110


def written_folder(name: str) -> str:
    """Return the path of a folder that is written: `~/` is the home folder, another `~` a name."""
    if name.startswith("~/"):
        return os.path.expanduser(name)  # noqa: PTH111
    # Libraries would take it for a user's home.
    return os.path.abspath(name) if name.startswith("~") else name  # noqa: PTH100
