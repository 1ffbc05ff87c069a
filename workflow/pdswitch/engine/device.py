"""The folder of a device: its lock, and the socket and the notes of the engine that takes it."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pdswitch.engine.processes import is_alive
from pdswitch.errors import InputError
from pdswitch.files import atomic_path

# Slurm, PBS, LSF: where they tell a job its number.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
# Linux limits a socket's path to 107 bytes.
MAX_SOCKET_PATH = 107

Note = TypeVar("Note", "EngineNote", "Holder")


class EngineNote(msgspec.Struct, frozen=True):
    """Names the engine of a device from its start until it has gone.

    Attributes:
        pid: the host process.
        started: see `pdswitch.engine.processes`.
        key: `EngineSpec.key()`.
        log: where it writes.
    """

    pid: int
    started: int
    key: str
    log: str

    @property
    def alive(self) -> bool:
        """Whether the engine is still running."""
        return is_alive(self.pid, self.started)


class Holder(msgspec.Struct, frozen=True):
    """Who has a device: the process of a job or a workflow, and its working folder."""

    pid: int
    started: int
    folder: str

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return is_alive(self.pid, self.started)


class DeviceDirectory:
    """The files of one device. An engine on several has its socket in the folder of the first.

    Args:
        label: one of `pdswitch.engine.gpus.device_names`.
        root: None for the user's runtime folder, or PDSWITCH_RUNTIME_DIR where it is set.

    Raises:
        PermissionError: if the folder belongs to somebody else or others may enter it.
        InputError: if its path is too long for a socket.
    """

    def __init__(self, label: str, root: Path | None = None) -> None:
        self.path = (root or runtime_root()) / re.sub(r"[^A-Za-z0-9.-]", "_", label)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.path.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(
                f"{self.path} must belong to you and be closed to others (mode 0700); "
                "remove it, or set PDSWITCH_RUNTIME_DIR to a folder of your own"
            )
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise InputError(
                f"the path {self.socket} is too long for a socket; "
                "set PDSWITCH_RUNTIME_DIR to a shorter one"
            )

    @property
    def socket(self) -> Path:
        """The host listens here."""
        return self.path / "socket"

    @property
    def lock(self) -> Path:
        """Held by the client that uses the device, for as long as it does."""
        return self.path / "lock"

    @property
    def holder(self) -> Path:
        """A `Holder`; counts only while the lock is held and the process lives."""
        return self.path / "holder.json"

    @property
    def claim(self) -> Path:
        """A `Holder`, the workflow that the device belongs to; counts while that lives."""
        return self.path / "claim.json"

    @property
    def claim_lock(self) -> Path:
        """Held while a claim is looked at and changed."""
        return self.path / "claim.lock"

    @property
    def spec(self) -> Path:
        """The spec the host was started with."""
        return self.path / "spec.json"

    @property
    def note(self) -> Path:
        """An `EngineNote`; an engine on several devices has one in the folder of each."""
        return self.path / "engine.json"


def read_note(path: Path, kind: type[Note]) -> Note | None:
    """Read a note; None if there is none, or none that this version understands."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_note(path: Path, note: Any) -> None:
    """Write a note as JSON, aside and renamed."""
    with atomic_path(path) as aside:
        aside.write_bytes(msgspec.json.encode(note))


def runtime_root() -> Path:
    """Return the user's folder for sockets and locks; in a cluster's job, one of the job's own.

    A cluster gives every job its own devices and often numbers them from 0 in each: two jobs on a
    node would else take the two devices for one.
    """
    root = _users_root()
    job = next(filter(None, map(os.environ.get, JOB_VARIABLES)), None)
    return root / re.sub(r"[^A-Za-z0-9.-]", "_", f"job-{job}") if job else root


def _users_root() -> Path:
    explicit = os.environ.get("PDSWITCH_RUNTIME_DIR")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        return Path(base) / "pdswitch"
    return Path(tempfile.gettempdir()) / f"pdswitch-{os.getuid()}"
