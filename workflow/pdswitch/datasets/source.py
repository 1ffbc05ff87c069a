"""Where records come from: a local file, a local copy of a hub repository, or the hub itself."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdswitch.datasets.options import DatasetOptions
from pdswitch.datasets.records import Record, read_records
from pdswitch.datasets.sample import DatasetError

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Stream(Iterator[Record]):
    """Records that may have no end within reach, and can be read once."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records

    def __next__(self) -> Record:
        """Return the next record."""
        return next(self._records)


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
                that is there is read, else `datasets` finds the data by the hub's own rules.
            split: of the data, where `datasets` reads it.
            subset: configuration of the data, where `datasets` reads it.
            shuffle_seed: shuffles the shards of a stream.

        Raises:
            DatasetError: if they cannot be read.
        """
        if self.path is not None and self.path.is_file():
            return read_records(self.path)
        name = self.find(files)
        if name is not None:
            return read_records(self.fetch(name))
        return Stream(self._stream(split, subset, shuffle_seed))

    def _stream(
        self, split: str, subset: str | None, shuffle_seed: int | None
    ) -> Iterator[dict[str, Any]]:
        from datasets import load_dataset

        try:
            if self.path is None:
                stream = load_dataset(
                    self.location, subset, split=split, revision=self.revision, streaming=True
                )
            else:
                stream = load_dataset(str(self.path), subset, split=split, streaming=True)
            if shuffle_seed is None:
                yield from stream
            else:
                count = stream.num_shards
                for shard in random.Random(shuffle_seed).sample(range(count), count):
                    yield from stream.shard(count, shard)
        except Exception as error:  # whatever its many readers raise
            raise hub_error(self.location, error) from error


def open_source(location: str, revision: str | None) -> Source:
    """Find what a location means: an existing path, or else a hub id.

    With `HF_HUB_OFFLINE` set, a repository is read from the hub's cache.

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
        raise DatasetError(
            f"there is no file or folder {location}; fetch it first, or correct the path"
        )
    return _hub_source(location, revision)


def input_files(options: DatasetOptions) -> list[str]:
    """Return the files of this machine that a dataset is made from, for what depends on them."""
    files = []
    for place in (options.location, getattr(options, "prompt_forms", None)):
        path = Path(place or "").expanduser()
        if place is not None and path.is_file():
            files.append(str(path))
        elif place is not None and path.is_dir():
            files += sorted(str(path / name) for name in _names_in(path))
    return files


def _names_in(path: Path) -> frozenset[str]:
    if path.is_file():
        return frozenset()
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return frozenset(name for name in names if not name.startswith("."))


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
    """Return what an error of `datasets` or of the hub's client means to the user."""
    from huggingface_hub import errors

    text = str(error)
    # `datasets` has no class of its own for this.
    if isinstance(error, errors.GatedRepoError) or "is a gated dataset" in text:
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
