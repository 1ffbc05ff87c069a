"""Runs of a cluster job, kept aside until the whole workflow has ended well.

All runs of a shard are one cluster job. When one of them fails, or the job is cancelled, Snakemake
deletes what the others had finished. A run that was kept is put back instead of measured again,
provided that its command, its inputs and its code are the same, byte for byte.
"""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from pdswitch.engine.spec import installed_vllm, source_digest
from pdswitch.files import atomic_path
from pdswitch.measurement import RUN_FILES

VARIABLE = "PDSWITCH_KEPT"
KEY_DIGITS = 32


class KeptRun:
    """Where the files of one run are kept.

    Args:
        root: folder of all kept runs; None keeps nothing.
        key: of this run, see `run_key`.
    """

    def __init__(self, root: Path | None, key: str) -> None:
        self._folder = None if root is None else Path(root) / key

    def restore(self, folder: Path) -> bool:
        """Put the run's files into a folder, if they were kept; say whether they were."""
        if self._folder is None or not self._folder.is_dir():
            return False
        for name in RUN_FILES:
            _link(self._folder / name, folder / name)
        return True

    def keep(self, folder: Path) -> None:
        """Keep the run whose files are in a folder."""
        if self._folder is None:
            return
        # All files or none: the folder gets its name when it is whole.
        aside = self._folder.with_name(f".{self._folder.name}.{os.getpid()}.part")
        shutil.rmtree(aside, ignore_errors=True)
        for name in RUN_FILES:
            _link(folder / name, aside / name)
        shutil.rmtree(self._folder, ignore_errors=True)
        aside.rename(self._folder)


def kept_run(inputs: Iterable[Path]) -> KeptRun:
    """Return where the run of this process's command line is kept.

    Nowhere, unless the workflow sets PDSWITCH_KEPT.

    Args:
        inputs: the files that the run reads.
    """
    root = os.environ.get(VARIABLE)
    return KeptRun(Path(root), run_key(sys.argv[1:], inputs)) if root else KeptRun(None, "")


def forget_finished(root: Path, results: Path) -> None:
    """Remove what was kept of runs that are among the results, and the folder if nothing is left.

    A workflow may end well with only a part of the results asked for: the rest stays kept.

    Args:
        root: folder of all kept runs; need not exist.
        results: the workflow's output folder.
    """
    if not root.is_dir():
        return
    finished = {path.read_bytes() for path in results.glob("*/*/*/throughput/*/*/run.json")}
    for run in root.glob("*/run.json"):
        if run.read_bytes() in finished:
            shutil.rmtree(run.parent)
    with contextlib.suppress(OSError):  # not empty
        root.rmdir()


def run_key(arguments: list[str], inputs: Iterable[Path]) -> str:
    """Return the digest of all that a run depends on: command line, inputs, our code, vLLM."""
    modules = [
        Path(file)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "pdswitch" and (file := getattr(module, "__file__", None))
    ]
    digest = hashlib.sha256()
    for part in [*arguments, installed_vllm(), source_digest()]:
        digest.update(part.encode() + b"\0")
    for path in [*inputs, *sorted(modules)]:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()[:KEY_DIGITS]


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy, where the file system knows no links."""
    with atomic_path(target) as aside:
        try:
            os.link(source, aside)
        except OSError:
            shutil.copy2(source, aside)
