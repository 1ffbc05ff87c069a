"""The store of results: what was measured, by the digest of all it depends on, to be put back.

Snakemake deletes the files of a job before it runs and when it fails, so a mistake in the config
would cost what took hours to measure, and the proof that k* was computed before. An entry of the
store is one file: the digest of its content, then the content. It is written aside and renamed, so
that whoever opens it reads a whole one, however many workflows write it and whenever one is killed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pdswitch.files import atomic_path
from pdswitch.stages.sources import stage_sources

KEY_DIGITS = 32
CHECK_DIGITS = 16
# The key, then what tells the result that is stored; nothing else in the folder is ours.
ENTRY_NAME = re.compile(rf"\.?[0-9a-f]{{{KEY_DIGITS}}}-[0-9a-f]{{{CHECK_DIGITS}}}\.kept(\..*part)?")
BYTES_PER_GB = 1e9
# By which the results of all stages that store theirs are found.
LAST_FILES = ("run.json", "threshold.json")
# Arguments that say how a job is run; the model and its engine are known by what they are.
NOT_COUNTED = {
    *("model", "engine", "engine_logs", "idle_timeout_s", "start_timeout_s", "run_timeout_s"),
    *("store", "store_gb", "workflow_began", "stored_since"),
}

Say = Callable[[str], None]


class Entry(msgspec.Struct, frozen=True):
    """What the store has of one result.

    Attributes:
        key: see `key_of`.
        stored_at: when it was stored, in seconds since 1970.
        dependencies: what the key is the digest of, for people who look for a difference.
        files: content of each file by name, in the order in which they are put back.
    """

    key: str
    stored_at: float
    dependencies: dict[str, Any]
    files: dict[str, bytes]


class Found(NamedTuple):
    """A file of the store, and when it was last used, s since 1970, and its size in bytes."""

    path: Path
    used: float
    size: int


class UnreadableEntryError(ValueError):
    """A file of the store is damaged, or no entry of this version; the message says which."""


class Store:
    """The entries of a folder.

    Args:
        folder: where they are; made when the first one comes.
        limit_bytes: how much they may take together.
        began: when the current workflow began, in s since 1970; what was used since then stays.
    """

    def __init__(self, folder: Path, limit_bytes: float, began: float) -> None:
        self.folder = Path(folder)
        self._limit_bytes = limit_bytes
        self._began = began

    def get(self, key: str, since: float = 0.0) -> Entry | None:
        """Return what was stored under a key, the latest of it, or None.

        Args:
            key: see `key_of`.
            since: what was stored before that counts for nothing, s since 1970.

        Raises:
            UnreadableEntryError: if there is something that is no such entry.
            OSError: if the folder or the file cannot be read.
        """
        for found in sorted(self._entries(key), key=lambda found: found.used, reverse=True):
            try:
                entry = read_entry(found.path)
            except FileNotFoundError:  # removed while we looked
                continue
            if entry.key != key:
                raise UnreadableEntryError(f"{found.path} is the entry of another key")
            if entry.stored_at >= since:
                self._use(found.path)
                return entry
        return None

    def put(self, entry: Entry) -> None:
        """Keep a result in place of an older one with its key, and make room for it.

        Raises:
            OSError: if it cannot be written.
        """
        content = msgspec.msgpack.encode(entry)
        check = result_check(list(entry.files.values())[-1])
        path = self.folder / f"{entry.key}-{check}.kept"
        with atomic_path(path) as aside:
            aside.write_bytes(hashlib.sha256(content).digest() + content)
        entries = self._entries(entry.key)
        # None, if another writer has taken its place already.
        written = next((found.used for found in entries if found.path == path), 0.0)
        for found in entries:
            if found.used < written:
                _remove(found.path)
        self._make_room()

    def use(self, checks: set[str]) -> None:
        """Count the entries of these results as used now; see `result_check`."""
        for found in self._scan():
            if found.path.stem.partition("-")[2] in checks:
                self._use(found.path)

    def size(self) -> int:
        """Return the bytes that all entries take."""
        return sum(found.size for found in self._scan())

    def _use(self, path: Path) -> None:
        # A store that only others may write to is read all the same.
        with contextlib.suppress(OSError):
            os.utime(path)

    def _make_room(self) -> None:
        """Remove entries that were used longest ago, none that was used since the beginning."""
        too_much = self.size() - self._limit_bytes
        for found in sorted(self._scan(), key=lambda found: found.used):
            if too_much <= 0 or found.used >= self._began:
                return
            if _remove(found.path):
                too_much -= found.size

    def _entries(self, key: str) -> list[Found]:
        return [found for found in self._scan() if found.path.name.startswith(f"{key}-")]

    def _scan(self) -> list[Found]:
        """Return the files of the store, those that a killed process left half written included."""
        files = []
        with contextlib.suppress(FileNotFoundError):
            for file in os.scandir(self.folder):
                if ENTRY_NAME.fullmatch(file.name):
                    with contextlib.suppress(FileNotFoundError):  # removed while we looked
                        status = file.stat()
                        files.append(Found(Path(file.path), status.st_mtime, status.st_size))
        return files


class StoredResult:
    """One result of a stage, and its place in the store.

    Args:
        store: None stores nothing.
        dependencies: all that the result depends on.
        outputs: its files; the last one says that it is whole.
        since: what was stored before that counts for nothing, s since 1970.
        say: takes sentences about what is going on.
    """

    def __init__(
        self,
        store: Store | None,
        dependencies: dict[str, Any],
        outputs: list[Path],
        since: float,
        say: Say,
    ) -> None:
        self._store = store
        self._dependencies = dependencies
        self._key = key_of(dependencies)
        self._outputs = outputs
        self._since = since
        self._say = say
        self._readable = True

    def restore(self) -> bool:
        """Put the files back if they were stored, and say whether; a damaged entry is not.

        Raises:
            OSError: if they cannot be written.
        """
        if self._store is None or not self._readable:
            return False
        try:
            entry = self._store.get(self._key, self._since)
        except (UnreadableEntryError, OSError) as error:
            # Said once, though a job that waits for its device asks again.
            self._readable = False
            self._say(f"what was stored cannot be put back and is made again: {error}")
            return False
        if entry is None or list(entry.files) != [path.name for path in self._outputs]:
            return False
        for path in self._outputs:
            with atomic_path(path) as aside:
                aside.write_bytes(entry.files[path.name])
        made = datetime.fromtimestamp(entry.stored_at).isoformat(" ", "minutes")
        self._say(f"put back from {self._store.folder}: made on {made}; --forcerun makes it anew")
        return True

    def save(self) -> None:
        """Store the files as they are now; a store that takes nothing more is no failure."""
        if self._store is None:
            return
        files = {path.name: path.read_bytes() for path in self._outputs}
        try:
            self._store.put(Entry(self._key, time.time(), self._dependencies, files))
        except OSError as error:
            self._say(f"warning: the results are written, but not stored for later: {error}")


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a job's command line where its results are stored; the workflow sets the variables."""
    read = os.environ.get
    parser.add_argument(
        "--store",
        type=Path,
        default=read("PDSWITCH_STORE"),
        help="folder of what was measured; without it nothing is stored or put back",
    )
    parser.add_argument(
        "--store-gb",
        type=float,
        default=float(read("PDSWITCH_STORE_GB", "5")),
        help="what was used longest ago is removed from it beyond this size; 0: there is no store",
    )
    parser.add_argument(
        "--workflow-began",
        type=float,
        default=float(read("PDSWITCH_WORKFLOW_BEGAN", time.time())),
        help="what was used since then is not removed, s since 1970",
    )
    parser.add_argument(
        "--stored-since",
        type=float,
        default=0.0,
        help="what was stored before that counts for nothing, s since 1970",
    )


def stored_result(
    script: Path,
    arguments: argparse.Namespace,
    outputs: list[Path],
    say: Say,
    **more: Any,
) -> StoredResult:
    """Return the place of a stage's result in the store that its arguments name.

    Args:
        script: the stage's file in `workflow/scripts`.
        arguments: its command line. A path counts by the content of its file, one of the outputs
            or their folder not at all.
        outputs: the files it writes; the last one says that the result is whole.
        say: takes sentences about what is going on.
        more: what the result depends on besides; of JSON's types.
    """
    if not has_store(arguments):
        return StoredResult(None, {}, outputs, 0.0, say)
    limit_bytes = arguments.store_gb * BYTES_PER_GB
    store = Store(arguments.store, limit_bytes, arguments.workflow_began)
    dependencies = {
        "stage": script.stem,
        "arguments": _values(arguments, outputs),
        "code": _code(script),
        **more,
    }
    return StoredResult(store, dependencies, outputs, arguments.stored_since, say)


def has_store(arguments: argparse.Namespace) -> bool:
    """Whether a command line names a store."""
    return arguments.store is not None and arguments.store_gb > 0


def key_of(dependencies: dict[str, Any]) -> str:
    """Return the digest of what a result depends on; made of JSON's types."""
    return _of(json.dumps(dependencies, sort_keys=True))[:KEY_DIGITS]


def result_check(run: bytes) -> str:
    """Return a short digest of a result's last file, by which its entry is found in the store."""
    return hashlib.sha256(run).hexdigest()[:CHECK_DIGITS]


def use_results(folder: Path, results: Path) -> None:
    """Count what is among the results as used now, so that it is removed last.

    Args:
        folder: of the store; need not exist.
        results: the workflow's output folder.
    """
    # Neither is ours to complain about here: the jobs do, when they need one.
    with contextlib.suppress(OSError):
        files = [path for name in LAST_FILES for path in results.rglob(name)]
        checks = {result_check(path.read_bytes()) for path in files}
        Store(folder, 0, 0).use(checks)


def read_entry(path: Path) -> Entry:
    """Read a file of the store.

    Raises:
        UnreadableEntryError: if it is damaged or of another version.
        OSError: if it cannot be read.
    """
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise UnreadableEntryError(f"{path} is damaged")
    try:
        return msgspec.msgpack.decode(content, type=Entry)
    except msgspec.MsgspecError as error:
        raise UnreadableEntryError(f"{path} is of another version of pdswitch") from error


def _remove(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # another user's, in a folder that several share
        return False
    return True


def _values(arguments: argparse.Namespace, outputs: list[Path]) -> dict[str, Any]:
    written = {*outputs, *(path.parent for path in outputs)}
    return {
        name: _digest(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in NOT_COUNTED and not (isinstance(value, Path) and value in written)
    }


def _code(script: Path) -> str:
    root = script.resolve().parents[2]
    return _of(*(_digest(root / source) for source in stage_sources(root, script.stem)))


def _of(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
