"""The process that owns vLLM on a device and serves runs, one client at a time.

It leaves when it has been idle for too long, when the last workflow that used it has ended, or
on SIGTERM. `python3 -m pdswitch.engine.host --help` shows its arguments; jobs start it through
`pdswitch.engine.client`.
"""

import argparse
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from pdswitch.engine.device import DeviceDirectory, EngineNote
from pdswitch.engine.protocol import (
    SAY_PREFIX,
    Description,
    Failure,
    FromClient,
    Hello,
    ProtocolError,
    RunCommand,
    receive,
    send,
)
from pdswitch.engine.spec import EngineSpec
from pdswitch.engine.vllm_engine import VllmEngine

WATCH_INTERVAL_S = 0.5


def say(line: str) -> None:
    """Print a line for the clients that wait for this engine."""
    print(SAY_PREFIX + line, flush=True)


class Owners:
    """The workflows that use this engine."""

    def __init__(self) -> None:
        self._processes: set[tuple[int, float]] = set()

    def add(self, hello: Hello) -> None:
        """Remember a client's workflow."""
        if hello.owner_pid is not None and hello.owner_started is not None:
            self._processes.add((hello.owner_pid, hello.owner_started))

    def all_gone(self) -> bool:
        """Whether there were workflows, and the last of them has ended."""
        had = bool(self._processes)
        self._processes = {owner for owner in self._processes if is_alive(*owner)}
        return had and not self._processes


def is_alive(pid: int, started: float) -> bool:
    """Whether this very process, not a later one of the same id, is still running."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Host:
    """Serves one client after the other on the device's socket."""

    def __init__(
        self, spec: EngineSpec, directory: DeviceDirectory, idle_timeout_s: float, owners: Owners
    ) -> None:
        self._directory = directory
        self._idle_timeout_s = idle_timeout_s
        self._owners = owners
        self._engine = VllmEngine(spec, say)
        self._description = Description(spec.key(), self._engine.describe())

    def serve(self, log: Path) -> None:
        """Listen until it is time to leave."""
        directory = self._directory
        directory.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(directory.socket))
            directory.socket.chmod(0o600)
            server.listen()
            server.settimeout(WATCH_INTERVAL_S)
            me = psutil.Process()
            note = EngineNote(me.pid, me.create_time(), self._description.key, str(log))
            directory.note.write_bytes(msgspec.json.encode(note))
            say(f"ready after {self._engine.load_s:.1f} s")
            idle_since = time.monotonic()
            while not self._owners.all_gone():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    if time.monotonic() - idle_since > self._idle_timeout_s:
                        say(f"leaving after {self._idle_timeout_s:g} s without work")
                        return
                    continue
                with connection:
                    self._serve_client(connection)
                idle_since = time.monotonic()
        say("leaving: the workflows that used this engine have ended")

    def close(self) -> None:
        """Remove what says that this engine can be reached, and end vLLM."""
        self._directory.socket.unlink(missing_ok=True)
        self._directory.note.unlink(missing_ok=True)
        self._engine.shutdown()

    def _serve_client(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        try:
            if peer_uid(connection) != os.getuid():
                send(connection, Failure("this engine serves its own user only"))
                return
            while (message := receive(connection, FromClient)) is not None:
                self._answer(connection, message)
        except ProtocolError as error:
            say(f"dropped a client: {error}")
            _send_if_possible(connection, Failure(str(error)))
        except (BrokenPipeError, ConnectionResetError):
            say("a client left in the middle of its run; its requests were dropped")

    def _answer(self, connection: socket.socket, message: Any) -> None:
        if isinstance(message, Hello):
            self._owners.add(message)
            send(connection, self._description)
            return
        assert isinstance(message, RunCommand)
        try:
            result = self._engine.run(message, lambda progress: send(connection, progress))
        except (ValueError, TypeError) as error:
            # vLLM's way to refuse a request; the engine itself is well.
            send(connection, Failure(str(error)))
            return
        send(connection, result)


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a Unix socket."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def _send_if_possible(connection: socket.socket, message: Failure) -> None:
    try:
        send(connection, message)
    except OSError:
        say("the client was gone before the error could be sent")


def main() -> None:
    """Run the host."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="of the device's socket")
    parser.add_argument("--log", type=Path, required=True, help="where this output goes")
    parser.add_argument("--idle-timeout-s", type=float, required=True)
    parser.add_argument("--owner-pid", type=int, help="workflow that starts this engine")
    parser.add_argument("--owner-started", type=float)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = DeviceDirectory(arguments.directory.name, arguments.directory.parent)
    spec = msgspec.json.decode(directory.spec.read_bytes(), type=EngineSpec)
    owners = Owners()
    owners.add(Hello(arguments.owner_pid, arguments.owner_started))
    host = Host(spec, directory, arguments.idle_timeout_s, owners)
    try:
        host.serve(arguments.log)
    finally:
        host.close()


if __name__ == "__main__":
    main()
