"""Which files of a folder or of a hub repository hold a split: the hub's own rules.

They are those of https://huggingface.co/docs/hub/datasets-file-names-and-splits and
https://huggingface.co/docs/hub/datasets-manual-configuration: the card's `configs` say it, or the
names of folders and files do, or everything is `train`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from pdswitch.datasets.records import names_records
from pdswitch.datasets.sample import DatasetError

SHARD = re.compile(r"data/([^/]+)-\d{5}-of-\d{5}[^/]*\.[^/]*")
KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Of a folder's or a file's name, with a keyword in the place of {0}.
BY_FOLDER = ("**/{0}/**", "**/{0}{1}*/**", "**/*{1}{0}/**", "**/*{1}{0}{1}*/**")
BY_FILE = ("**/{0}{1}*", "**/*{1}{0}{1}*")
BETWEEN = "[-._ 0-9]"
# Descriptions that libraries leave beside the data.
DESCRIPTIONS = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}


def data_files(names: Iterable[str]) -> list[str]:
    """Return those of a folder's files that hold records by their names, in order."""
    return sorted(
        name
        for name in names
        if names_records(name) and PurePosixPath(name).name not in DESCRIPTIONS
    )


def split_files(
    names: Iterable[str], card: Mapping[str, Any], split: str, subset: str | None
) -> list[str]:
    """Return the files of a split, in the order in which the hub's own loader reads them.

    Args:
        names: of the folder's files, relative to it.
        card: the metadata of its README.md.
        split: of the data.
        subset: one of the card's `configs`; None for the default one.

    Raises:
        DatasetError: if there is no such split or subset, or the card is wrong; the message lacks
            the folder's name.
    """
    files = data_files(names)
    if not files:
        raise DatasetError("holds no JSON, CSV or Parquet files; give a folder or a hub id of some")
    splits = _configured(files, card, subset)
    if split not in splits:
        raise DatasetError(
            f"has no split {split}, but {', '.join(splits) or 'none'}; name one of them as split "
            "where the kind of dataset has this option, or give the file itself"
        )
    return splits[split]


def _configured(
    files: list[str], card: Mapping[str, Any], subset: str | None
) -> dict[str, list[str]]:
    """Return the files of each split of a subset."""
    listed = card.get("configs")
    configs = {
        str(config["config_name"]): config
        for config in (listed if isinstance(listed, list) else [])
        if isinstance(config, dict) and "config_name" in config
    }
    if subset is None:
        default = [name for name, config in configs.items() if config.get("default")]
        subset = next(iter([*default, *(["default"] if "default" in configs else [])]), None)
        if subset is None and len(configs) > 1:
            raise DatasetError(f"has several subsets; name one of {', '.join(configs)} as subset")
        subset = subset or next(iter(configs), None)
    elif subset not in configs:
        raise DatasetError(
            f"has no subset {subset}; name one of {', '.join(configs)}"
            if configs
            else f"has no subsets; remove subset ({subset})"
        )
    config = {} if subset is None else configs[subset]
    folder = str(config.get("data_dir") or "").strip("./")
    if folder:
        files = [name.removeprefix(f"{folder}/") for name in files if name.startswith(f"{folder}/")]
    patterns = config.get("data_files")
    splits = _by_name(files) if patterns is None else _by_patterns(files, patterns)
    prefix = f"{folder}/" if folder else ""
    return {split: [prefix + name for name in found] for split, found in splits.items() if found}


def _by_patterns(files: list[str], listed: Any) -> dict[str, list[str]]:
    """Read `data_files` of a card: a pattern, several, or a list of {split, path}."""
    entries = listed if isinstance(listed, list) else [listed]
    splits: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = (
            (str(entry.get("split", "train")), entry.get("path"))
            if isinstance(entry, dict)
            else ("train", entry)
        )
        for path in paths if isinstance(paths, list) else [paths]:
            splits.setdefault(split, []).extend(_matching(files, [str(path).removeprefix("./")]))
    return {split: list(dict.fromkeys(found)) for split, found in splits.items()}


def _by_name(files: list[str]) -> dict[str, list[str]]:
    shards: dict[str, list[str]] = {}
    for name in files:
        if found := SHARD.fullmatch(name):
            shards.setdefault(found[1], []).append(name)
    if shards:
        return shards
    for patterns in (BY_FOLDER, BY_FILE):
        splits = {
            split: _matching(
                files, [pattern.format(word, BETWEEN) for word in words for pattern in patterns]
            )
            for split, words in KEYWORDS.items()
        }
        if any(splits.values()):
            return splits
    return {"train": files}


def _matching(files: list[str], patterns: list[str]) -> list[str]:
    """Return the files that match, those of the first pattern first."""
    from fsspec.utils import glob_translate

    try:
        expressions = [re.compile(glob_translate(pattern)) for pattern in patterns]
    except (ValueError, re.error) as error:
        raise DatasetError(
            f"has a card whose data_files are no patterns ({error}); mend it"
        ) from error
    return list(dict.fromkeys(name for e in expressions for name in files if e.match(name)))
