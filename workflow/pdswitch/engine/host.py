"""The process that owns an engine on a device and serves runs, one after the other.

It leaves when it has been idle for too long, when the last workflow that used it has ended, when
its note is gone, or on SIGTERM. Jobs start it through `pdswitch.engine.client`;
`python3 -m pdswitch.engine.host --help` shows its arguments.
"""

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pdswitch.engine.device import DeviceDirectory, EngineNote, read_note
from pdswitch.engine.processes import STOP_TIMEOUT_S, end_group_with_this_process, is_alive
from pdswitch.engine.protocol import (
    MAX_FRAME_BYTES,
    RECEIVE_BYTES,
    SAY_PREFIX,
    VERSION,
    Description,
    Failure,
    FromClient,
    FromHost,
    Hello,
    Inbox,
    Progress,
    ProtocolError,
    Report,
    RunCommand,
    RunResult,
    decode,
    encode,
    peer_of,
    send,
)
from pdswitch.engine.spec import EngineSpec
from pdswitch.engine.vllm_engine import VllmEngine

WATCH_INTERVAL_S = 0.5
# A peer that has not said hello by then is no client.
HELLO_TIMEOUT_S = 10.0
MAX_HELLO_BYTES = 1 << 16
MAX_STRANGERS = 32
MAX_PEERS = 256
# A client that does not take its result for so long is given up.
SEND_TIMEOUT_S = 60.0
BACKLOG = 128
NOT_NAMED = "the device's note names another engine, or none"


def say(line: str) -> None:
    """Print a line for the clients that wait for this engine."""
    # The log's disk may be full, which is no reason to lose a run.
    with contextlib.suppress(OSError):
        print(SAY_PREFIX + line, flush=True)


class ServedEngine(Protocol):
    """What a host serves: a `VllmEngine`, or a stand-in for it in tests."""

    load_s: float

    def describe(self) -> dict[str, Any]:
        """Return facts for the results."""

    def self_check(self, report: Callable[[Report], None]) -> dict[str, Any]:
        """Return whether the machine is quiet; `report` as for a run."""

    def run(self, command: RunCommand, progress: Callable[[Progress], None]) -> RunResult:
        """Serve a run; what `progress` raises aborts it and comes out here."""

    def shutdown(self) -> None:
        """End everything that was started."""


class RunAbandonedError(Exception):
    """Nobody waits for the run any more; the message says why."""


class Owners:
    """The workflows that use this engine."""

    def __init__(self) -> None:
        self._processes: set[tuple[int, int]] = set()

    def add(self, hello: Hello) -> None:
        """Remember a client's workflow."""
        if hello.owner_pid is not None and hello.owner_started is not None:
            self._processes.add((hello.owner_pid, hello.owner_started))

    def all_gone(self) -> bool:
        """Whether there were workflows, and the last of them has ended."""
        had = bool(self._processes)
        self._processes = {owner for owner in self._processes if is_alive(*owner)}
        return had and not self._processes


class Peer:
    """One connection: a stranger until it has said hello, then a client."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.inbox = Inbox()
        self.since = time.monotonic()
        self.hello: Hello | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the workflow of this client has ended."""
        return self.hello is not None and self.hello.orphaned


class Host:
    """Serves the peers of the device's socket; a run at a time, and none waits for a silent one.

    Args:
        engine: what serves the runs.
        key: of its spec.
        directory: of the device; its note must name this process for as long as this host serves.
        idle_timeout_s: it leaves after so many seconds without a client.
        owners: the workflows known so far.
    """

    def __init__(
        self,
        engine: ServedEngine,
        key: str,
        directory: DeviceDirectory,
        idle_timeout_s: float,
        owners: Owners,
    ) -> None:
        self._engine = engine
        self._description = Description(key, engine.describe())
        self._directory = directory
        self._idle_timeout_s = idle_timeout_s
        self._owners = owners
        self._selector = selectors.DefaultSelector()
        self._peers: list[Peer] = []
        self._idle_since = time.monotonic()

    def serve(self) -> None:
        """Listen until it is time to leave, and say why."""
        if not self._is_named():
            say(f"leaving: {NOT_NAMED}")
            return
        path = self._directory.socket
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            path.chmod(0o600)
            server.listen(BACKLOG)
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ)
            say(f"ready after {self._engine.load_s:.1f} s")
            self._idle_since = time.monotonic()
            while (reason := self._reason_to_leave()) is None:
                for key, _ in self._selector.select(WATCH_INTERVAL_S):
                    if key.data is None:
                        self._accept(server)
                    elif key.data in self._peers:  # not dropped since
                        self._read(key.data)
                self._drop_overdue()
            say(f"leaving: {reason}")

    def close(self) -> None:
        """Become unreachable, end the engine, and only then let the device go."""
        if self._is_named():
            self._directory.socket.unlink(missing_ok=True)
        for peer in list(self._peers):
            self._drop(peer)
        self._selector.close()
        self._engine.shutdown()
        if self._is_named():
            self._directory.note.unlink(missing_ok=True)

    def _is_named(self) -> bool:
        note = read_note(self._directory.note, EngineNote)
        return note is not None and note.pid == os.getpid()

    def _reason_to_leave(self) -> str | None:
        if not self._is_named():
            return NOT_NAMED
        if not self._directory.socket.exists():
            return "its socket was removed"
        if any(peer.hello for peer in self._peers):
            return None
        if self._owners.all_gone():
            return "the workflows that used this engine have ended"
        if time.monotonic() - self._idle_since > self._idle_timeout_s:
            return f"{self._idle_timeout_s:g} s without work"
        return None

    # -- peers --------------------------------------------------------------------------------

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        connection.setblocking(False)
        peer = Peer(connection)
        self._peers.append(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)
        _, user = peer_of(connection)
        if user != os.getuid():
            self._refuse(peer, "this engine serves its own user only")
            return
        strangers = [peer for peer in self._peers if peer.hello is None]
        if len(strangers) > MAX_STRANGERS:
            self._refuse(strangers[0], "too many connections that say nothing")
        elif len(self._peers) > MAX_PEERS:
            self._refuse(peer, "too many connections")

    def _drop_overdue(self) -> None:
        now = time.monotonic()
        for peer in list(self._peers):
            if peer.hello is None and now - peer.since > HELLO_TIMEOUT_S:
                self._refuse(peer, f"no hello within {HELLO_TIMEOUT_S:g} s")
            elif peer.abandoned:
                self._refuse(peer, "its workflow has ended")

    def _refuse(self, peer: Peer, reason: str) -> None:
        say(f"dropped a connection: {reason}")
        self._send(peer, Failure(reason))
        self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        if peer not in self._peers:
            return
        self._peers.remove(peer)
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer.hello is not None:
            self._idle_since = time.monotonic()

    def _send(self, peer: Peer, message: FromHost) -> None:
        """Send something short; a peer that has gone, or leaves no room for it, is dropped."""
        data = encode(message)
        try:
            sent = peer.connection.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._drop(peer)

    def _send_result(self, peer: Peer, result: RunResult) -> None:
        """Send something long, and give the client time to take it."""
        peer.connection.settimeout(SEND_TIMEOUT_S)
        try:
            send(peer.connection, result)
        except OSError as error:
            say(f"a client did not take its result: {error}")
            self._drop(peer)
        else:
            peer.connection.setblocking(False)

    # -- messages -----------------------------------------------------------------------------

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(peer)
            return
        if not data:
            if len(peer.inbox):
                self._refuse(peer, "the connection ended inside a frame")
            self._drop(peer)
            return
        peer.inbox.feed(data)
        try:
            while peer in self._peers:
                content = peer.inbox.take(MAX_FRAME_BYTES if peer.hello else MAX_HELLO_BYTES)
                if content is None:
                    break
                self._answer(peer, content)
        except ProtocolError as error:
            self._refuse(peer, str(error))

    def _answer(self, peer: Peer, content: bytes) -> None:
        try:
            message = decode(content, FromClient)
        except ProtocolError as error:
            self._send(peer, Failure(str(error)))
            return
        if isinstance(message, Hello):
            self._welcome(peer, message)
        elif peer.hello is None:
            self._send(peer, Failure("say hello first"))
        else:
            self._run(peer, message)

    def _welcome(self, peer: Peer, hello: Hello) -> None:
        if hello.version != VERSION:
            reason = (
                f"this engine speaks version {VERSION} of the protocol and the client version "
                f"{hello.version}; use the same pdswitch for both, or end the engine "
                f"(kill {os.getpid()})"
            )
            self._send(peer, Failure(reason))
            return
        peer.hello = hello
        self._owners.add(hello)
        self._send(peer, self._description)

    def _run(self, peer: Peer, command: RunCommand) -> None:
        def report(message: Report) -> None:
            if peer.abandoned:
                raise RunAbandonedError("its workflow has ended")
            # To a client that reads slowly, some of it may be lost.
            with contextlib.suppress(BlockingIOError):
                try:
                    peer.connection.send(encode(message))
                except ConnectionError as error:
                    raise RunAbandonedError("its client has gone") from error

        try:
            check = self._engine.self_check(report)
            result = self._engine.run(command, report)
        except RunAbandonedError as error:
            say(f"a run was aborted: {error}")
            self._refuse(peer, str(error))
        except (ValueError, OSError) as error:
            # The run was refused, or its record did not fit on the disk; the engine is well.
            self._send(peer, Failure(str(error)))
        else:
            conditions = result.conditions | {"self_check": check}
            self._send_result(peer, msgspec.structs.replace(result, conditions=conditions))


def leave_in_order(*_: Any) -> None:
    """On SIGTERM: end the engine and exit; if that takes too long, the alarm ends the process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(round(STOP_TIMEOUT_S))
    say("leaving: asked to by SIGTERM")
    sys.exit(0)


def undo_niceness() -> None:
    """Run at the priority of a program that a shell starts, where the system allows it."""
    if os.nice(0) <= 0:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except PermissionError:
        say(f"the engine runs at nice {os.nice(0)}; other programs go before it")


def main() -> None:
    """Run the host."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="of the device's socket")
    parser.add_argument("--idle-timeout-s", type=float, required=True)
    parser.add_argument("--owner-pid", type=int, help="workflow that starts this engine")
    parser.add_argument("--owner-started", type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, leave_in_order)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    undo_niceness()
    end_group_with_this_process()
    directory = DeviceDirectory(arguments.directory.name, arguments.directory.parent)
    spec = msgspec.json.decode(directory.spec.read_bytes(), type=EngineSpec)
    owners = Owners()
    owners.add(Hello(VERSION, arguments.owner_pid, arguments.owner_started))
    engine = VllmEngine(spec, say)
    host = Host(engine, spec.key(), directory, arguments.idle_timeout_s, owners)
    try:
        host.serve()
    finally:
        signal.alarm(round(STOP_TIMEOUT_S))
        host.close()


if __name__ == "__main__":
    main()
