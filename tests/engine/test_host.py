"""The host against bad company: garbage, silence, strangers, clients that go or do not read."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from pdswitch.engine import host as host_module
from pdswitch.engine.device import DeviceDirectory, EngineNote, write_note
from pdswitch.engine.host import Host, Owners
from pdswitch.engine.processes import start_time
from pdswitch.engine.protocol import (
    LENGTH,
    VERSION,
    Failure,
    FromHost,
    Hello,
    Inbox,
    ProtocolError,
    RunCommand,
    RunResult,
    decode,
    encode,
    receive,
    send,
)
from socket_fuzz import THIS_PROCESS, command, fuzz, random_content, result_of
from stand_in_engine import KEY, ServedStandIn, StandInEngine

FRAMES = 100_000


@pytest.fixture
def served(tmp_path):
    stand_in = ServedStandIn(tmp_path)
    yield stand_in
    stand_in.stop()


def connect(served: ServedStandIn) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(served.directory.socket))
    return connection


def client(served: ServedStandIn, hello: Hello | None = None) -> socket.socket:
    connection = connect(served)
    send(connection, hello or Hello(VERSION))
    assert receive(connection, FromHost).key == KEY
    return connection


def eventually(attempt):
    deadline = time.monotonic() + 20
    while True:
        try:
            return attempt()
        except (AssertionError, AttributeError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def works(served: ServedStandIn) -> None:
    with client(served) as connection:
        send(connection, command())
        assert isinstance(result_of(connection), RunResult)


# -- fuzz ---------------------------------------------------------------------------------------


def test_a_hundred_thousand_bad_frames_are_answered_one_by_one_and_harm_nothing(served):
    client(served, THIS_PROCESS).close()
    answers = fuzz(served.directory.socket, random.Random(5), FRAMES, random_content)
    assert served.serving
    assert min(answers.values()) > 100
    works(served)


def test_any_bytes_decode_to_a_message_or_to_a_protocol_error():
    source = random.Random(6)
    for _ in range(20_000):
        content = random_content(source)
        with contextlib.suppress(ProtocolError):
            assert isinstance(decode(content, Hello | RunCommand), Hello | RunCommand)


def test_an_inbox_gives_the_frames_whatever_the_pieces_they_come_in():
    source = random.Random(7)
    contents = [source.randbytes(source.randrange(300)) for _ in range(200)]
    stream = b"".join(LENGTH.pack(len(c)) + c for c in contents)
    inbox, taken = Inbox(), []
    while stream:
        size = source.randrange(1, 500)
        inbox.feed(stream[:size])
        stream = stream[size:]
        while (content := inbox.take()) is not None:
            taken.append(content)
    assert taken == contents
    assert len(inbox) == 0


# -- silence ------------------------------------------------------------------------------------


def test_silent_connections_keep_nobody_waiting_and_are_dropped(served, monkeypatch):
    silent = [connect(served) for _ in range(10)]
    for connection in silent[:5]:
        connection.sendall(LENGTH.pack(100) + b"half a hello")
    started = time.monotonic()
    works(served)
    assert time.monotonic() - started < 5
    monkeypatch.setattr(host_module, "HELLO_TIMEOUT_S", 0.0)
    for connection in silent:
        assert "no hello within" in receive(connection, FromHost).message
        assert receive(connection, FromHost) is None
        connection.close()


def test_of_many_silent_connections_the_oldest_are_dropped(served):
    silent = [connect(served) for _ in range(2 * host_module.MAX_STRANGERS)]
    works(served)
    for connection in silent[: host_module.MAX_STRANGERS]:
        assert "say nothing" in receive(connection, FromHost).message
    works(served)
    for connection in silent:
        connection.close()


def test_there_is_room_for_so_many_clients_and_no_more(served, monkeypatch):
    monkeypatch.setattr(host_module, "MAX_PEERS", 5)
    clients = [client(served) for _ in range(5)]
    with connect(served) as connection:
        assert receive(connection, FromHost) == Failure("too many connections")
    clients.pop().close()
    clients.append(eventually(lambda: client(served)))
    for connection in clients:
        connection.close()


def refused(connection: socket.socket, data: bytes) -> bool:
    try:
        while True:
            connection.send(data)
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_a_peer_that_sends_and_never_reads_is_dropped(served):
    with connect(served) as connection:
        connection.setblocking(False)
        noise = (LENGTH.pack(3) + b"abc") * 10_000
        assert eventually(lambda: refused(connection, noise))
    works(served)


def test_a_result_nobody_takes_is_given_up(served, monkeypatch):
    monkeypatch.setattr(host_module, "SEND_TIMEOUT_S", 0.3)
    with client(served) as stalled:
        send(stalled, command(record_bytes=10_000_000))
        time.sleep(0.2)
        works(served)
        assert served.engine.finished == 2


def test_a_client_that_reads_no_progress_still_gets_its_result(served):
    with client(served) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        send(connection, command(2000))
        time.sleep(3)
        assert isinstance(result_of(connection), RunResult)


# -- who may, and who has gone --------------------------------------------------------------------

STRANGER = """
import os, socket, sys
from pdswitch.engine.protocol import *
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
    print(receive(connection, FromHost).message)
    print(receive(connection, FromHost))
except PermissionError:
    print("permission denied")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a client as another user")
def test_another_user_s_process_is_refused_by_the_files_and_by_the_host(tmp_path, root):
    # pytest's own folder is closed to others, which would hide what is tested here.
    folder = Path("/tmp") / f"pdswitch-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    served = ServedStandIn(folder)
    path = str(served.directory.socket)

    def stranger() -> list[str]:
        run = subprocess.run(
            [sys.executable, "-c", STRANGER, path],
            env={"PYTHONPATH": str(root / "workflow")},
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.splitlines()

    try:
        assert stranger() == ["permission denied"]
        served.directory.path.chmod(0o755)
        assert stranger() == ["permission denied"]
        served.directory.socket.chmod(0o666)
        assert stranger() == ["this engine serves its own user only", "None"]
        works(served)
    finally:
        served.directory.path.chmod(0o700)
        served.stop()
        for path in [*served.directory.path.iterdir(), served.directory.path]:
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


@pytest.mark.parametrize("version", [0, VERSION - 1, VERSION + 1])
def test_a_client_of_another_version_is_told_what_to_do(served, version):
    with connect(served) as connection:
        # As the first version said it: without a version.
        old = {"type": "hello", "owner_pid": None, "owner_started": None}
        content = msgspec.msgpack.encode(old if version == 0 else Hello(version))
        connection.sendall(LENGTH.pack(len(content)) + content)
        answer = receive(connection, FromHost)
        assert (
            f"version {VERSION} of the protocol and the client version {version}" in answer.message
        )
        assert "use the same pdswitch for both" in answer.message
        send(connection, command())
        assert receive(connection, FromHost) == Failure("say hello first")


def test_a_client_that_goes_in_mid_run_ends_the_run_alone(served):
    with client(served) as connection:
        send(connection, command(10_000))
        receive(connection, FromHost)
    works(served)
    assert (served.engine.aborted, served.engine.finished) == (1, 1)


def test_a_run_whose_workflow_ends_is_dropped_and_so_is_the_engine(served):
    workflow = subprocess.Popen(["sleep", "60"])
    hello = Hello(VERSION, workflow.pid, start_time(workflow.pid))
    with client(served, hello) as connection:
        send(connection, command(10_000))
        receive(connection, FromHost)
        workflow.kill()
        workflow.wait()
        assert result_of(connection) == Failure("its workflow has ended")
        assert receive(connection, FromHost) is None
    served.wait()
    assert served.engine.shut_down
    assert not served.directory.socket.exists()
    assert not served.directory.note.exists()


def test_a_client_without_a_workflow_keeps_the_engine_after_a_workflow_has_ended(served):
    workflow = subprocess.Popen(["sleep", "60"])
    with client(served) as by_hand:
        client(served, Hello(VERSION, workflow.pid, start_time(workflow.pid))).close()
        workflow.kill()
        workflow.wait()
        time.sleep(2 * host_module.WATCH_INTERVAL_S)
        send(by_hand, command())
        assert isinstance(result_of(by_hand), RunResult)
    served.wait()


def test_it_leaves_when_idle_but_not_under_a_client_nor_for_a_stranger(tmp_path):
    served = ServedStandIn(tmp_path, idle_timeout_s=0.6)
    with client(served):
        time.sleep(1.5)
        assert served.serving
    with connect(served):
        served.wait()
    assert not served.directory.note.exists()


def test_it_leaves_the_device_to_an_engine_that_has_taken_its_place(tmp_path):
    served = ServedStandIn(tmp_path)
    other = msgspec.structs.replace(served.note, pid=1)
    served.directory.note.write_bytes(msgspec.json.encode(other))
    served.wait()
    assert served.directory.note.exists()
    assert served.directory.socket.exists()


def test_an_engine_that_is_not_named_touches_nobody_s_socket(tmp_path):
    directory = DeviceDirectory("cpu", tmp_path)
    write_note(directory.note, EngineNote(1, 1, KEY, "log"))
    directory.socket.touch()  # the named one's
    superseded = Host(StandInEngine(), KEY, directory, 300.0, Owners())
    superseded.serve()
    superseded.close()
    assert directory.socket.is_file()
    assert directory.note.exists()


def test_it_leaves_when_nobody_can_reach_it_any_more(tmp_path):
    served = ServedStandIn(tmp_path)
    served.directory.socket.unlink()
    served.wait()
    assert not served.directory.note.exists()


def test_a_log_on_a_full_disk_ends_nothing(root):
    code = (
        "import sys\n"
        "from pdswitch.engine.host import say\n"
        "say('ready')\n"
        "say('still there')\n"
        "sys.stderr.write('went on')\n"
    )
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(root / "workflow")},
            text=True,
        )
    assert run.stderr.startswith("went on")


def test_runs_of_several_clients_are_served_one_after_the_other(served):
    results = []

    def use() -> None:
        with client(served) as connection:
            send(connection, command(50))
            results.append(result_of(connection))

    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(result) for result in results] == [RunResult] * 5


def test_a_wrong_result_size_is_told_not_sent(served, monkeypatch):
    monkeypatch.setattr("pdswitch.engine.protocol.MAX_FRAME_BYTES", 1000)
    with client(served) as connection:
        send(connection, command(record_bytes=5000))
        assert "exceeds 1000" in result_of(connection).message
    with pytest.raises(ProtocolError, match="send fewer requests a run"):
        encode(RunResult(b"x" * 2000, []))
