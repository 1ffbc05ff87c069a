"""Where records come from: a local file, a local copy of a hub repository, or the hub itself."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pdswitch.datasets.records import Record, read_records
from pdswitch.datasets.sample import DatasetError

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Files that a folder holds beside its data.
NO_DATA = {"README.md", ".gitattributes", ".huggingface.yaml", "LICENSE"}
# A stream is shuffled within a window of so many records, because it is never read to its end.
WINDOW = 10_000


@dataclass(frozen=True)
class Source:
    """A place that records are read from.

    Attributes:
        location: hub id or path, as the user gave it.
        path: the local file or folder; None for the hub.
        revision: commit of the hub repository; None for what lies on this machine.
        names: files of the repository or folder, relative to it.
    """

    location: str
    path: Path | None
    revision: str | None
    names: frozenset[str]

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
            path = hf_hub_download(
                self.location, name, repo_type="dataset", revision=self.revision
            )
        except Exception as error:  # the hub's client raises its own, httpx's and the system's
            raise hub_error(self.location, error) from error
        return Path(path)

    def streams(self, files: Sequence[str] = ()) -> bool:
        """Return whether `records` leaves the reading to `datasets`."""
        is_file = self.path is not None and self.path.is_file()
        return not is_file and self.find(files) is None

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
                that is there is read, else `datasets` finds the data by the hub's own rules.
            split: of the data, where `datasets` reads it.
            subset: configuration of the data, where `datasets` reads it.
            shuffle_seed: shuffles the shards of a stream, and its records within a window.

        Raises:
            DatasetError: if they cannot be read.
        """
        if self.path is not None and self.path.is_file():
            return read_records(self.path)
        name = self.find(files)
        if name is not None:
            return read_records(self.fetch(name))
        return self._stream(split, subset, shuffle_seed)

    def _stream(
        self, split: str, subset: str | None, shuffle_seed: int | None
    ) -> Iterator[dict[str, Any]]:
        from datasets import load_dataset

        place = self.location if self.path is None else str(self.path)
        try:
            stream = load_dataset(
                place, subset, split=split, revision=self.revision, streaming=True
            )
            if shuffle_seed is not None:
                stream = stream.shuffle(seed=shuffle_seed, buffer_size=WINDOW)
            yield from stream
        except Exception as error:  # whatever its many readers raise
            raise hub_error(self.location, error) from error


def open_source(location: str, revision: str | None) -> Source:
    """Find what a location means: an existing path, or else a hub id.

    With `HF_HUB_OFFLINE` set, or without a network, a repository that the hub's cache holds is
    read from there.

    Args:
        location: path or hub id.
        revision: branch, tag or commit of a hub repository.

    Raises:
        DatasetError: if there is no such path or repository, or it may not be read.
    """
    path = Path(location).expanduser()
    if path.exists():
        if revision is not None:
            raise DatasetError(
                f"revision {revision} is given for the local path {location}, which has none; "
                "remove revision, or give a hub id"
            )
        return Source(location, path, None, _names_in(path))
    if not HUB_ID.fullmatch(location) or location.endswith((".json", ".jsonl", ".csv", ".parquet")):
        raise DatasetError(f"there is no file or folder {location}; check the path")
    return _hub_source(location, revision)


def local_files(location: str | None) -> list[str]:
    """Return the files below a location that lie on this machine, for what depends on them."""
    if location is None:
        return []
    path = Path(location).expanduser()
    if path.is_dir():
        return sorted(str(path / name) for name in _names_in(path))
    return [str(path)] if path.is_file() else []


def _names_in(path: Path) -> frozenset[str]:
    if path.is_file():
        return frozenset()
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    hidden = (name for name in names if not PurePosixPath(name).parts[0].startswith("."))
    return frozenset(name for name in hidden if name not in NO_DATA)


def _hub_source(location: str, revision: str | None) -> Source:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return _cached_source(location, revision)
    try:
        info = HfApi().dataset_info(location, revision=revision)
    except Exception as error:
        raise hub_error(location, error) from error
    names = frozenset(file.rfilename for file in info.siblings or [])
    return Source(location, None, info.sha, names)


def _cached_source(location: str, revision: str | None) -> Source:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                location, repo_type="dataset", revision=revision, local_files_only=True
            )
        )
    except Exception as error:
        raise DatasetError(
            f"HF_HUB_OFFLINE is set and the hub's cache does not hold {location}; run `hf "
            f"download --repo-type dataset {location}` where there is a network, or set its "
            "source to a local copy"
        ) from error
    return Source(location, folder, folder.name, _names_in(folder))


def hub_error(location: str, error: Exception) -> DatasetError:
    """Return what an error of `datasets` or of the hub's client means to the user."""
    from huggingface_hub import errors

    text = str(error)
    if isinstance(error, errors.GatedRepoError) or "gated" in text.lower():
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
