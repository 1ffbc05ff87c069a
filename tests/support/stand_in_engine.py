"""A host on an engine without vLLM, served from a thread: for tests of everything but vLLM."""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pdswitch.engine.device import DeviceDirectory, EngineNote, write_note
from pdswitch.engine.host import Host, Owners
from pdswitch.engine.processes import start_time
from pdswitch.engine.protocol import Notice, Progress, Report, RunCommand, RunResult

KEY = "stand-in"


class StandInEngine:
    """Sleeps a millisecond a token of the longest request, and reports as vLLM would."""

    load_s = 0.0

    def __init__(self) -> None:
        self.finished = 0
        self.aborted = 0
        self.shut_down = False
        self.notices: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"pid": os.getpid()}

    def self_check(self, report: Callable[[Report], None]) -> dict[str, Any]:
        for text in self.notices:
            report(Notice(text))
        return {"warnings": self.notices}

    def run(self, command: RunCommand, progress: Callable[[Progress], None]) -> RunResult:
        if not command.requests:
            raise ValueError("a run needs at least one request")
        try:
            for token in range(min(10_000, max(r.max_tokens for r in command.requests))):
                progress(Progress(0, token))
                time.sleep(0.001)
        except BaseException:
            self.aborted += 1
            raise
        self.finished += 1
        return RunResult(b"x" * command.sampling.get("record_bytes", 10), [])

    def shutdown(self) -> None:
        self.shut_down = True


class ServedStandIn:
    """The host's thread and what it serves."""

    def __init__(
        self,
        root: Path,
        idle_timeout_s: float = 300.0,
        key: str = KEY,
        devices: Sequence[str] = ("cpu",),
    ) -> None:
        self.engine = StandInEngine()
        self.directory = DeviceDirectory(devices[0], root)
        me = os.getpid()
        self.note = EngineNote(me, start_time(me), key, str(root / "log"))
        for device in devices:
            write_note(DeviceDirectory(device, root).note, self.note)
        self.owners = Owners()
        self.host = Host(self.engine, key, self.directory, idle_timeout_s, self.owners)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._listens() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _listens(self) -> bool:
        # The socket's file is there a moment before it is listened to.
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.directory.socket)) == 0

    def _serve(self) -> None:
        try:
            self.host.serve()
        except BaseException as error:
            self.error = error
        finally:
            self.host.close()

    @property
    def serving(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take the note away, upon which the host leaves."""
        self.directory.note.unlink(missing_ok=True)
        self.wait()

    def wait(self, timeout: float = 10.0) -> None:
        self._thread.join(timeout)
        assert not self.serving, "the host did not leave"
        if self.error is not None:
            raise self.error
