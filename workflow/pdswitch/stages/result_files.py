"""Read a result file as its type: a damaged file, or one of another version, is refused by name."""

from pathlib import Path
from typing import TypeVar

import msgspec

from pdswitch.errors import InputError
from pdswitch.files import read_json

Content = TypeVar("Content", bound=msgspec.Struct)


def read_result(path: Path, content: type[Content], version: int) -> Content:
    """Read a result file.

    Args:
        path: of the file.
        content: the Struct that it holds; it has a `schema_version`.
        version: of the files that this code reads.

    Raises:
        InputError: if another version of pdswitch wrote the file, or if it is damaged.
    """
    try:
        found = read_json(path)
        written = found.get("schema_version", 0)
    except (ValueError, AttributeError) as error:
        raise _damaged(path, str(error)) from error
    if written != version:
        raise InputError(
            f"{path} was written by another version of pdswitch (schema {written}, this one reads "
            f"{version}); delete the file and run the workflow again"
        )
    try:
        return msgspec.convert(found, content)
    except msgspec.ValidationError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged ({reason}); delete it and run the workflow again")
