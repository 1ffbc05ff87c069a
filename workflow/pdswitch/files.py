"""Atomic writes: readers see the old file or the complete new one."""

import contextlib
import errno
import fcntl
import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# About a microsecond. A multiple of a power of two has a short mantissa, whose other bytes are 0.
TIME_RESOLUTION_S = 2.0**-20
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoRoomError(OSError):
    """A file does not fit on its disk; the message says which, and the remedy."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} could not be written ({reason}); free some space there and run again"
        )


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, renamed to `path` if the block succeeds.

    The content is on the disk before it gets its name: after a power cut `path` is the old file
    or the new one, never an empty one.

    Raises:
        NoRoomError: if the disk is full, or the user's share of it.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        with aside.open("wb") as held:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_EX)
            yield aside
            _flush(aside)
            aside.replace(path)
        _flush(path.parent)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoomError(path, os.strerror(error.errno)) from error
    finally:
        aside.unlink(missing_ok=True)


def _remove_left_behind(path: Path) -> None:
    """Remove what a killed process wrote aside; a living one holds a lock on its own."""
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), aside.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.unlink()


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; NaN and infinity, which JSON lacks, become null."""
    with atomic_path(path) as aside:
        text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: Path, table: "pa.Table | pd.DataFrame") -> None:
    """Write a table or data frame as Parquet, compressed with zstd."""
    # Imported here: the engine process uses this module too, and needs neither.
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def write_records(path: Path, records: "pd.DataFrame") -> None:
    """Write step or request records as Parquet in few bytes.

    Times, the columns in `_s`, are rounded to `TIME_RESOLUTION_S`; all else is kept as it is.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = [name for name in records if name.endswith("_s")]
    rounded = (records[times] / TIME_RESOLUTION_S).round() * TIME_RESOLUTION_S
    table = pa.Table.from_pandas(records.assign(**rounded), preserve_index=False)
    with atomic_path(path) as aside:
        pq.write_table(
            # pandas' notes, a second schema and the statistics of each column would outweigh a
            # short run's data.
            table.replace_schema_metadata(None),
            aside,
            compression="zstd",
            store_schema=False,
            write_statistics=False,
            use_dictionary=[field.name for field in table.schema if field.type == pa.string()],
            use_byte_stream_split=times,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and value - value != 0:  # NaN or infinite
        return None
    return value
