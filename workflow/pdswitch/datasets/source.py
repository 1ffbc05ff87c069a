"""Where records come from: a local file, a local copy of a hub repository, or the hub itself."""

import io
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdswitch.datasets.layout import split_files
from pdswitch.datasets.options import DatasetOptions
from pdswitch.datasets.records import (
    CHUNK,
    NoRecordsError,
    Record,
    names_records,
    read_records,
    records_of,
)
from pdswitch.datasets.sample import DatasetError, Skipped
from pdswitch.paths import local_path

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
CARD = "README.md"
# Nobody misses these among the records.
DOCUMENTS = (".md", ".gitattributes", ".gitignore", "LICENSE", "LICENSE.txt")

logger = logging.getLogger(__name__)


class Stream(Iterator[Record]):
    """Records that may have no end within reach, and can be read once."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records

    def __next__(self) -> Record:
        """Return the next record."""
        return next(self._records)


class _HubFile(io.RawIOBase):
    """A file on the hub, read in parts; whatever its client raises means something to the user."""

    def __init__(self, location: str, path: str) -> None:
        from huggingface_hub import HfFileSystem

        self._location = location
        self._file = self._asked(HfFileSystem().open, path, "rb")

    def _asked(self, question: Callable[..., Any], *values: Any) -> Any:
        try:
            return question(*values)
        except Exception as error:  # the client raises its own, its transport's and the system's
            raise hub_error(self._location, error) from error

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any part of it can be asked for."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; nothing is asked for."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place, bytes from the beginning."""
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        """Read what is at the place into a buffer and return how much it is, bytes."""
        return int(self._asked(self._file.readinto, buffer))


@dataclass(frozen=True)
class Source:
    """A place that records are read from.

    Attributes:
        location: hub id or path, as the user gave it.
        path: the local file or folder; None for the hub.
        revision: commit of the hub repository; None for what lies on this machine.
        names: files of the repository or folder, relative to it.
        columns: of the records that are needed; None for all.
    """

    location: str
    path: Path | None
    revision: str | None
    names: frozenset[str]
    columns: frozenset[str] | None = None

    def find(self, files: Sequence[str]) -> str | None:
        """Return the first of several files that this source has, None if it has none."""
        return next((name for name in files if name in self.names), None)

    def fetch(self, name: str) -> Path:
        """Return the local path of a file of this source, downloaded if need be.

        Raises:
            DatasetError: if it cannot be downloaded.
        """
        if self.path is not None:
            return self.path / name
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(self.location, name, repo_type="dataset", revision=self.revision)
        except Exception as error:  # the hub's client raises its own, httpx's and the system's
            raise hub_error(self.location, error) from error
        return Path(path)

    def records(
        self,
        files: Sequence[str] = (),
        split: str = "train",
        subset: str | None = None,
        shuffle_seed: int | None = None,
    ) -> Iterator[Record]:
        """Yield the records in order, reading no more than is asked for.

        Args:
            files: names under which the repository may hold the records as one file; the first
                that is there is read, else the files of the split, by the hub's own rules.
            split: of the data, where there are several files.
            subset: configuration of the data, where there are several files.
            shuffle_seed: shuffles the files of a split.

        Raises:
            DatasetError: if they cannot be read.
        """
        if self.path is not None and self.path.is_file():
            return read_records(self.path, self.columns)
        name = self.find(files)
        if name is not None:
            return read_records(self.fetch(name), self.columns)
        return Stream(self._stream(split, subset, shuffle_seed))

    def _stream(self, split: str, subset: str | None, shuffle_seed: int | None) -> Iterator[Record]:
        card = self._card()
        try:
            names = split_files(self.names, card, split, subset)
        except DatasetError as error:
            raise DatasetError(f"{self.location} {error}") from error
        self._say_what_is_left(names)
        if shuffle_seed is not None:
            names = random.Random(shuffle_seed).sample(names, len(names))
        unread: list[NoRecordsError] = []
        for name in names:
            try:
                yield from self._file(name)
            except NoRecordsError as error:
                logger.warning("left out: %s", error)
                unread.append(error)
                yield Skipped("file without records")
        if len(unread) == len(names):
            raise unread[0]

    def _file(self, name: str) -> Iterator[Record]:
        if self.path is not None:
            return read_records(self.path / name, self.columns)
        path = f"datasets/{self.location}@{self.revision}/{name}"
        raw: Any = _HubFile(self.location, path)
        return records_of(io.BufferedReader(raw, CHUNK), f"{self.location}/{name}", self.columns)

    def _card(self) -> Mapping[str, Any]:
        """Return the metadata of the README.md, which may say what is where."""
        if CARD not in self.names:
            return {}
        from huggingface_hub import metadata_load

        path = self.fetch(CARD)
        try:
            return metadata_load(path) or {}
        except Exception as error:  # the YAML reader's own, and what is not UTF-8
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise DatasetError(
                f"{self.location} has a {CARD} whose head is no YAML ({first_line}); mend it"
            ) from error

    def _say_what_is_left(self, names: Sequence[str]) -> None:
        left = sorted(name for name in self.names - {*names} if not name.endswith(DOCUMENTS))
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            logger.warning(
                "%s: %s of its files hold this split; left out: %s",
                self.location,
                len(names),
                ", ".join(left[:5]) + more,
            )


def open_source(
    location: str, revision: str | None, columns: frozenset[str] | None = None
) -> Source:
    """Find what a location means: an existing path, or else a hub id.

    With `HF_HUB_OFFLINE` set, a repository is read from the hub's cache.

    Args:
        location: path or hub id.
        revision: branch, tag or commit of a hub repository.
        columns: of the records that are needed; None for all.

    Raises:
        DatasetError: if there is no such path or repository, or it may not be read.
    """
    path = local_path(location)
    if path is not None:
        if revision is not None:
            raise DatasetError(
                f"revision {revision} is given for the local path {location}, which has none; "
                "remove revision, or give a hub id"
            )
        return Source(location, path, None, _names_in(path), columns)
    if not HUB_ID.fullmatch(location) or names_records(location):
        raise DatasetError(
            f"there is no file or folder {location}; fetch it first, or correct the path"
        )
    return replace(_hub_source(location, revision), columns=columns)


def input_files(options: DatasetOptions) -> list[str]:
    """Return the files of this machine that a dataset is made from, for what depends on them."""
    files = []
    for place in (options.location, getattr(options, "prompt_forms", None)):
        path = None if place is None else local_path(place)
        if path is not None and path.is_file():
            files.append(str(path))
        elif path is not None:
            files += sorted(str(path / name) for name in _names_in(path))
    return files


def _names_in(path: Path) -> frozenset[str]:
    """Return the files of a folder, those aside that are hidden."""
    files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    return frozenset(
        file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts)
    )


def _hub_source(location: str, revision: str | None) -> Source:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return _cached_source(location, revision)
    try:
        info = HfApi().dataset_info(location, revision=revision)
    except Exception as error:
        raise hub_error(location, error) from error
    names = frozenset(file.rfilename for file in info.siblings or [])
    # The repository's full name, where the hub knows it by a short one.
    return Source(info.id or location, None, info.sha, names)


def _cached_source(location: str, revision: str | None) -> Source:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        repositories = frozenset()
    found = [
        cached
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == ("dataset", location)
        for cached in repository.revisions
        if revision is None or revision == cached.commit_hash or revision in cached.refs
        # Streaming leaves the description alone in the cache.
        if any(not file.file_name.endswith(".md") for file in cached.files)
    ]
    if not found:
        raise DatasetError(
            f"HF_HUB_OFFLINE is set and the hub's cache does not hold {location}; run `hf "
            f"download --repo-type dataset {location}` where there is a network, or set its "
            "source to a local copy"
        )
    newest = max(found, key=lambda cached: ("main" in cached.refs, cached.last_modified))
    folder = newest.snapshot_path
    return Source(location, folder, newest.commit_hash, _names_in(folder))


def hub_error(location: str, error: Exception) -> DatasetError:
    """Return what an error of the hub's client means to the user."""
    from huggingface_hub import errors

    text = str(error)
    if isinstance(error, errors.GatedRepoError):
        return DatasetError(
            f"{location} is gated: accept its terms at https://huggingface.co/datasets/{location}, "
            "then set HF_TOKEN to a token of that account (or run `hf auth login`), or set its "
            "source to a local copy"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return DatasetError(f"{location} has no such revision; check revision")
    if isinstance(error, errors.RepositoryNotFoundError):
        return DatasetError(
            f"{location} is neither a local path nor a dataset on the hub that this account may "
            "see; check the name, or set HF_TOKEN"
        )
    first_line = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return DatasetError(
        f"{location} cannot be read ({type(error).__name__}: {first_line}); "
        "check the source's layout and the network, or set its source to a local copy"
    )
