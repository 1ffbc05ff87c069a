"""What goes over the engine's socket: length-prefixed MessagePack frames of tagged structs.

Nothing is unpickled. A whole frame that does not decode is answered with `Failure`; after one that
is too long or cut short the connection is closed, because nobody knows where the next one begins.
"""

import socket
import struct
from typing import Any

import msgspec

from pdswitch.engine.processes import is_alive
from pdswitch.plugin.policy import Policy

# Of this protocol; counted up when a message changes its meaning.
VERSION = 3
LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 1 << 30
RECEIVE_BYTES = 1 << 20
# Lines of the host's output that begin so are for the client that waits for it.
SAY_PREFIX = "pdswitch: "


class Request(msgspec.Struct, frozen=True):
    """One request of a run; `ignore_eos` makes it generate exactly `max_tokens`."""

    request_id: str
    prompt_token_ids: list[int]
    max_tokens: int
    ignore_eos: bool


class RunCommand(msgspec.Struct, frozen=True, tag="run"):
    """Serve these requests, all queued before the first step, under this policy.

    Attributes:
        policy: see `pdswitch.plugin.policy`.
        requests: in the order of their admission.
        sampling: keyword arguments of vLLM's `SamplingParams` (temperature, top_p, …).
        want_outputs: whether token ids and text come back, or only their number.
    """

    policy: Policy
    requests: list[Request]
    sampling: dict[str, Any]
    want_outputs: bool = False


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First frame of a client.

    Attributes:
        version: `VERSION` of the client; 0 from a client that does not say.
        owner_pid: the workflow process whose end ends the engine.
        owner_started: see `pdswitch.engine.processes`.
    """

    version: int = 0
    owner_pid: int | None = None
    owner_started: int | None = None

    @property
    def orphaned(self) -> bool:
        """Whether the client belongs to a workflow, and that has ended."""
        if self.owner_pid is None or self.owner_started is None:
            return False
        return not is_alive(self.owner_pid, self.owner_started)


class Description(msgspec.Struct, frozen=True, tag="description"):
    """Answer to `Hello`: what this engine is."""

    key: str
    facts: dict[str, Any]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Sent now and then during a run: requests finished and tokens generated so far."""

    requests: int
    tokens: int


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """Sent before a run: a sentence for the person who waits for it."""

    text: str


class Output(msgspec.Struct, frozen=True):
    """What one request generated."""

    request_id: str
    token_ids: list[int]
    text: str


class RunResult(msgspec.Struct, frozen=True, tag="result"):
    """End of a run.

    Attributes:
        record: see `pdswitch.plugin.record`.
        outputs: one per request, if they were asked for.
        conditions: see `pdswitch.engine.hardware.conditions`; ``before`` and ``after`` the run;
            ``self_check`` before it, see `pdswitch.engine.self_check.judge`.
    """

    record: bytes
    outputs: list[Output]
    conditions: dict[str, Any] = {}


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The command was not carried out; the engine goes on serving."""

    message: str


FromClient = Hello | RunCommand
Report = Progress | Notice
FromHost = Description | Report | RunResult | Failure


class ProtocolError(ValueError):
    """A frame that is too long, cut short, or not a message of this protocol."""


class Inbox:
    """Collects what a peer sends until whole frames can be taken out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._data += data

    def take(self, limit: int = MAX_FRAME_BYTES) -> bytes | None:
        """Take out the next frame's content, or return None if it is not there as a whole.

        Raises:
            ProtocolError: if the frame is longer than `limit` bytes.
        """
        if len(self._data) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._data)
        _refuse_longer(size, limit)
        end = LENGTH.size + size
        if len(self._data) < end:
            return None
        content = bytes(memoryview(self._data)[LENGTH.size : end])
        del self._data[:end]
        return content


def decode(content: bytes, kind: Any) -> Any:
    """Decode a frame's content as a message of a union type.

    Raises:
        ProtocolError: if it is not such a message.
    """
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message of this protocol: {error}") from error


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return process id and user id at the other end of a Unix socket, as the system knows them."""
    layout = struct.Struct("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
    pid, uid, _ = layout.unpack(credentials)
    return pid, uid


def encode(message: FromClient | FromHost) -> bytes:
    """Return a message as a frame.

    Raises:
        ProtocolError: if it is too long for one.
    """
    content = msgspec.msgpack.encode(message)
    if len(content) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"a message of {len(content)} bytes exceeds {MAX_FRAME_BYTES}; "
            "send fewer requests a run"
        )
    return LENGTH.pack(len(content)) + content


def send(connection: socket.socket, message: FromClient | FromHost) -> None:
    """Send one message."""
    connection.sendall(encode(message))


def receive(connection: socket.socket, kind: Any) -> Any:
    """Receive one message of a union type, or None if the peer has hung up between frames.

    Raises:
        ProtocolError: if what came is not such a message.
    """
    header = _read(connection, LENGTH.size)
    if header is None:
        return None
    (size,) = LENGTH.unpack(header)
    _refuse_longer(size, MAX_FRAME_BYTES)
    content = _read(connection, size)
    if content is None:
        raise ProtocolError("the connection ended inside a frame")
    return decode(content, kind)


def _refuse_longer(size: int, limit: int) -> None:
    if size > limit:
        raise ProtocolError(f"a frame of {size} bytes exceeds {limit}")


def _read(connection: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    left = size
    while left:
        part = connection.recv(min(left, RECEIVE_BYTES))
        if not part:
            if parts:
                raise ProtocolError("the connection ended inside a frame")
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
