"""Which workflow a device belongs to, from its first measured job until its process has ended.

Two workflows on one device would else take turns job by job, and load their engines anew each time.
"""

import contextlib
from collections.abc import Sequence

from filelock import FileLock

from pdswitch.engine.device import DeviceDirectory, Holder, read_note, write_note


def claim(directories: Sequence[DeviceDirectory], workflow: Holder) -> Holder | None:
    """Claim devices for a workflow, all or none of them.

    A workflow has one claim at a time. Whatever it has of other devices is given up first, so that
    none holds one device while it waits for another.

    Args:
        directories: of the devices, sorted by name; in one folder.
        workflow: its process.

    Returns:
        None if they are claimed now, or else the workflow that has one of them.
    """
    with contextlib.ExitStack() as stack:
        for directory in directories:
            stack.enter_context(FileLock(directory.claim_lock))
        for directory in directories:
            other = read_note(directory.claim, Holder)
            if other is not None and other.alive and not _same(other, workflow):
                _give_up(directories, workflow, kept=[])
                return other
        _give_up(directories, workflow, kept=directories)
        for directory in directories:
            write_note(directory.claim, workflow)
    return None


def _give_up(
    directories: Sequence[DeviceDirectory], workflow: Holder, kept: Sequence[DeviceDirectory]
) -> None:
    keeping = {directory.claim for directory in kept}
    for path in directories[0].path.parent.glob(f"*/{directories[0].claim.name}"):
        mine = read_note(path, Holder)
        if mine is not None and _same(mine, workflow) and path not in keeping:
            path.unlink(missing_ok=True)


def _same(one: Holder, other: Holder) -> bool:
    return (one.pid, one.started) == (other.pid, other.started)
