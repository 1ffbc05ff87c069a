"""Bad company for an engine host: frames that are noise or spoilt, connections that break off."""

import os
import random
import socket
import struct
from pathlib import Path

import msgspec

from pdswitch.engine.processes import start_time
from pdswitch.engine.protocol import (
    LENGTH,
    MAX_FRAME_BYTES,
    VERSION,
    Description,
    Failure,
    FromHost,
    Hello,
    Progress,
    Request,
    RunCommand,
    RunResult,
    receive,
    send,
)
from pdswitch.plugin.policy import Policy

THIS_PROCESS = Hello(VERSION, os.getpid(), start_time(os.getpid()))


def command(tokens: int = 1, **sampling) -> RunCommand:
    return RunCommand(Policy(), [Request("a", [1, 2, 3], tokens, True)], sampling)


def result_of(connection: socket.socket) -> RunResult | Failure:
    while isinstance(answer := receive(connection, FromHost), Progress):
        pass
    return answer


def random_content(source: random.Random) -> bytes:
    """Return something that may or may not be a message: noise, or a valid one spoilt."""
    kind = source.randrange(6)
    if kind == 0:
        return source.randbytes(source.randrange(200))
    valid = msgspec.msgpack.encode(
        source.choice([Hello(VERSION), Hello(7), THIS_PROCESS, command(2), Failure("x")])
    )
    if kind == 1:
        return valid
    if kind == 2:
        return valid[: source.randrange(len(valid))]
    if kind == 3:
        spoilt = bytearray(valid)
        for _ in range(source.randrange(1, 4)):
            spoilt[source.randrange(len(spoilt))] = source.randrange(256)
        return bytes(spoilt)
    if kind == 4:
        wrong = [None, 3, "x", [], {}, {"type": "run"}, {"type": "hello", "owner_pid": "me"}, 1e300]
        return msgspec.msgpack.encode(source.choice(wrong))
    # Deep nesting, and lengths inside the message that promise more than there is.
    return source.choice([b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\x01"])


def fuzz(path: Path, source: random.Random, frames: int, content) -> dict[type, int]:
    """Send bad frames until so many were answered, over connections that end well and badly."""
    answers = {Description: 0, Failure: 0, RunResult: 0}
    dropped = 0
    while sum(answers.values()) < frames:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(path))
            try:
                converse(connection, source, content, answers)
            except ConnectionError:
                dropped += 1  # a hello was spoilt into one of a workflow that has ended
    assert dropped < frames / 100
    return answers


def converse(connection: socket.socket, source: random.Random, content, answers) -> None:
    if source.random() < 0.5:
        send(connection, Hello(VERSION))
        answers[type(receive(connection, FromHost))] += 1
    contents = [content(source) for _ in range(source.randrange(1, 100))]
    connection.sendall(b"".join(LENGTH.pack(len(c)) + c for c in contents))
    for _ in contents:
        answer = result_of(connection)
        if answer is None or answer == Failure("its workflow has ended"):
            raise ConnectionError
        answers[type(answer)] += 1
    ending = source.randrange(4)
    if ending == 0:  # a frame that is too long
        connection.sendall(struct.pack(">I", source.randrange(MAX_FRAME_BYTES + 1, 1 << 32)))
    elif ending == 1:  # one that breaks off
        connection.sendall(LENGTH.pack(1000) + b"half")
        connection.shutdown(socket.SHUT_WR)
    elif ending == 2:  # one that breaks off, and nobody waits for what is said to it
        connection.sendall(LENGTH.pack(1000)[: source.randrange(1, 4)])
    if ending < 2:
        assert isinstance(receive(connection, FromHost), Failure)
        assert receive(connection, FromHost) is None
