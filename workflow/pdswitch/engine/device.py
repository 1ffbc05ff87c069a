"""Where the engine of a device keeps its socket, its lock and its notes."""

import os
import re
import tempfile
from pathlib import Path

import msgspec

# Linux limits a socket's path to 107 bytes.
MAX_SOCKET_PATH = 107


class EngineNote(msgspec.Struct, frozen=True):
    """What a host writes about itself once it serves; gone when it leaves in order."""

    pid: int
    started: float  # as psutil reports it: with the pid, it names one process for good
    key: str
    log: str


class DeviceDirectory:
    """The files of one device's engine.

    Args:
        label: `EngineSpec.device_label`.
        root: None for the user's runtime folder, or PDSWITCH_RUNTIME_DIR where it is set.

    Raises:
        PermissionError: if the folder belongs to somebody else or others may enter it.
        ValueError: if its path is too long for a socket.
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
            raise ValueError(
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
        """Says in one line who holds the lock."""
        return self.path / "holder"

    @property
    def spec(self) -> Path:
        """The spec the host was started with."""
        return self.path / "spec.json"

    @property
    def note(self) -> Path:
        """An `EngineNote`."""
        return self.path / "engine.json"


def runtime_root() -> Path:
    """Return the user's folder for sockets and locks."""
    explicit = os.environ.get("PDSWITCH_RUNTIME_DIR")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        return Path(base) / "pdswitch"
    return Path(tempfile.gettempdir()) / f"pdswitch-{os.getuid()}"
