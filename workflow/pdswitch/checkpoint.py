"""Whether the files of a model's folder are whole: found here, not after a minute in the engine."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pdswitch.errors import InputError
from pdswitch.model import SMALL_FILES, weight_files

# How the text begins that Git stores in the place of a large file.
POINTER_STARTS = (b"version https://git-lfs", b"version https://hawser")
MAX_POINTER_BYTES = 1024
ZIP_START = b"PK"
AGAIN = "download the model again"


def refuse_broken(name: str, folder: Path, load_format: str) -> None:
    """Refuse a folder with files of a model that were not fetched, are empty or cut short.

    Args:
        name: of the model in the config.
        folder: config, tokenizer and weights.
        load_format: of the engine; with ``dummy`` no weights are needed.

    Raises:
        InputError: naming the first such file and the remedy.
    """
    for fault in _faults(folder, load_format):
        raise InputError(f"model {name}: {fault}")


def _faults(folder: Path, load_format: str) -> Iterator[str]:
    for file in sorted(folder.iterdir()):
        if file.suffix in SMALL_FILES:
            yield from _small_faults(file)
    if load_format == "dummy":
        return
    weights = weight_files(folder)
    kinds = "*.safetensors" if load_format == "safetensors" else "*.safetensors or *.bin"
    if not weights or weights[0].suffix not in kinds:
        yield (
            f"{folder} holds no weights ({kinds}); {AGAIN}, "
            "or set engine.load_format: dummy to measure with random weights"
        )
    for file in weights:
        yield from _weight_faults(file)
    yield from _index_faults(folder / "model.safetensors.index.json")


def _small_faults(file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as content:
            start = content.read(MAX_POINTER_BYTES + 1)
    except FileNotFoundError:
        yield f"{file} is a link to a file that is not there; {AGAIN}"
    except OSError as error:
        yield f"{file} cannot be read ({error.strerror}); make it a file that you may read"
    else:
        if len(start) <= MAX_POINTER_BYTES and start.startswith(POINTER_STARTS):
            yield (
                f"{file} is a pointer of Git LFS, not the file itself; "
                "run `git lfs pull` in the model's folder"
            )


def _weight_faults(file: Path) -> Iterator[str]:
    yield from _small_faults(file)
    with file.open("rb") as content:
        start = content.read(len(ZIP_START))
    if not start:
        yield f"{file} is empty; {AGAIN}"
    elif file.suffix == ".safetensors":
        yield from _safetensors_faults(file)
    elif start == ZIP_START and not zipfile.is_zipfile(file):
        yield f"{file} is cut short; {AGAIN}"


def _safetensors_faults(file: Path) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):  # reads the header, and compares it with the size
            return
    except (SafetensorError, OSError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        yield f"{file} is cut short or no safetensors file ({reason}); {AGAIN}"


def _index_faults(index: Path) -> Iterator[str]:
    """Say what the index of a model in several parts lists in vain."""
    if not index.is_file():
        return
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        missing = [name for name in names if not (index.parent / name).exists()]
    except (ValueError, KeyError, TypeError, AttributeError):
        yield f"{index} is no index of weights; {AGAIN}"
    else:
        for name in missing:
            yield f"{index.parent / name} is missing, though {index.name} lists it; {AGAIN}"
