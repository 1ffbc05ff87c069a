"""What goes over the engine's socket: length-prefixed MessagePack frames of tagged structs.

Nothing is unpickled. A frame that does not decode is answered with `Failure`.
"""

import socket
import struct
from typing import Any

import msgspec

from pdswitch.policy import Policy

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 1 << 30
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
        policy: see `pdswitch.policy`.
        requests: in the order of their admission.
        sampling: keyword arguments of vLLM's `SamplingParams` (temperature, top_p, …).
        want_outputs: whether token ids and text come back, or only their number.
    """

    policy: Policy
    requests: list[Request]
    sampling: dict[str, Any]
    want_outputs: bool = False


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First frame of a client. `owner` is the workflow process whose end ends the engine."""

    owner_pid: int | None = None
    owner_started: float | None = None


class Description(msgspec.Struct, frozen=True, tag="description"):
    """Answer to `Hello`: what this engine is."""

    key: str
    facts: dict[str, Any]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Sent now and then during a run: requests finished and tokens generated so far."""

    requests: int
    tokens: int


class Output(msgspec.Struct, frozen=True):
    """What one request generated."""

    request_id: str
    token_ids: list[int]
    text: str


class RunResult(msgspec.Struct, frozen=True, tag="result"):
    """End of a run: its record (see `pdswitch.record`), and the outputs if asked for."""

    record: bytes
    outputs: list[Output]


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The command was not carried out; the engine goes on serving."""

    message: str


FromClient = Hello | RunCommand
FromHost = Description | Progress | RunResult | Failure


class ProtocolError(ValueError):
    """A frame that is too long, cut short, or not a message of this protocol."""


def send(connection: socket.socket, message: FromClient | FromHost) -> None:
    """Send one message."""
    data = msgspec.msgpack.encode(message)
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"a message of {len(data)} bytes exceeds {MAX_FRAME_BYTES}; send fewer requests a run"
        )
    connection.sendall(LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, kind: Any) -> Any:
    """Receive one message of a union type, or None if the peer has hung up between frames.

    Raises:
        ProtocolError: if what came is not such a message.
    """
    header = _read(connection, LENGTH.size)
    if header is None:
        return None
    (size,) = LENGTH.unpack(header)
    if size > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {size} bytes exceeds {MAX_FRAME_BYTES}")
    data = _read(connection, size)
    if data is None:
        raise ProtocolError("the connection ended inside a frame")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a message of this protocol: {error}") from error


def _read(connection: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    left = size
    while left:
        part = connection.recv(min(left, 1 << 20))
        if not part:
            if parts:
                raise ProtocolError("the connection ended inside a frame")
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
