"""The warm engine as a process: reuse, replacement, death, and bad company on its socket."""

import os
import signal
import socket
import stat
import time
from pathlib import Path

import psutil
import pytest

from pdswitch.engine.client import EngineError, open_engine
from pdswitch.engine.device import DeviceDirectory
from pdswitch.engine.protocol import (
    LENGTH,
    VERSION,
    Failure,
    FromHost,
    Hello,
    Request,
    RunCommand,
    receive,
    send,
)
from pdswitch.engine.spec import EngineSpec, source_digest
from pdswitch.policy import Policy
from pdswitch.record import decode_record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spec(tiny_model) -> EngineSpec:
    return EngineSpec(
        model=str(tiny_model),
        n_slots=4,
        max_model_len=512,
        max_num_batched_tokens=1024,
        device="cpu",
        dtype="float32",
        num_kv_blocks=20,
        kv_cache_memory_bytes=1 << 28,
        enforce_eager=True,
        source_digest=source_digest(),
    )


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Path:
    """Folder of the engines of these tests; whatever still runs there is ended."""
    folder = tmp_path_factory.mktemp("engines")
    yield folder
    for pid in engine_pids(folder):
        os.kill(pid, signal.SIGTERM)


def engine_pids(folder: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "pdswitch.engine.host" in (process.info["cmdline"] or [])
        and any(str(folder) in word for word in process.info["cmdline"])
    ]


def opened(spec: EngineSpec, folder: Path, said: list[str] | None = None, idle: float = 300.0):
    return open_engine(
        spec,
        idle_timeout_s=idle,
        start_timeout_s=240,
        log_folder=folder / "logs",
        say=(said if said is not None else []).append,
        root=folder,
    )


def command(count: int, tokens: int) -> RunCommand:
    wanted = [Request(f"r{i}", [1, 2, 3], tokens, True) for i in range(count)]
    return RunCommand(Policy(kind="fixed", threshold=2), wanted, {"temperature": 0.0})


def test_one_engine_serves_many_clients_and_loads_once(spec, runtime):
    pids, said = set(), []
    for _ in range(3):
        with opened(spec, runtime, said) as engine:
            record = decode_record(engine.run(command(6, 5), lambda p: None).record)
            assert sum(row.output_tokens for row in record.requests) == 30
            pids.add(engine.facts["pid"])
    assert len(pids) == 1
    assert sum(line.startswith("ready after") for line in said) == 1
    assert any(line.startswith("loading") for line in said)


def test_the_socket_is_closed_to_others(spec, runtime):
    with opened(spec, runtime):
        directory = DeviceDirectory(spec.device_label, runtime)
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(directory.socket.stat().st_mode) == 0o600
    directory.path.chmod(0o755)
    try:
        with pytest.raises(PermissionError, match="mode 0700"):
            DeviceDirectory(spec.device_label, runtime)
    finally:
        directory.path.chmod(0o700)


def test_a_refused_run_is_a_sentence_and_the_engine_lives(spec, runtime):
    with opened(spec, runtime) as engine:
        bad = RunCommand(Policy(kind="fixed", threshold=9), command(2, 3).requests, {})
        with pytest.raises(EngineError, match="threshold 9 exceeds the 4 slots"):
            engine.run(bad, lambda p: None)
        engine.run(command(3, 3), lambda p: None)


@pytest.mark.parametrize(
    "frame", [b"\xff\xff\xff\xff", LENGTH.pack(3) + b"abc", LENGTH.pack(100) + b"cut short"]
)
def test_malformed_frames_are_answered_or_dropped_never_fatal(spec, runtime, frame):
    with opened(spec, runtime) as engine:
        pid = engine.facts["pid"]
    directory = DeviceDirectory(spec.device_label, runtime)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory.socket))
        connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        assert isinstance(receive(connection, FromHost), Failure)
    with opened(spec, runtime) as engine:
        assert engine.facts["pid"] == pid


def test_a_client_that_leaves_in_mid_run_does_not_end_the_engine(spec, runtime):
    with opened(spec, runtime) as engine:
        pid = engine.facts["pid"]
    directory = DeviceDirectory(spec.device_label, runtime)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory.socket))
        send(connection, Hello(VERSION))
        receive(connection, FromHost)
        send(connection, command(40, 400))
        receive(connection, FromHost)  # the run is under way
    with opened(spec, runtime) as engine:
        record = decode_record(engine.run(command(6, 5), lambda p: None).record)
        assert len(record.requests) == 6
        assert engine.facts["pid"] == pid


def test_killed_in_mid_run_it_fails_with_its_log_and_the_next_client_gets_a_new_one(spec, runtime):
    with opened(spec, runtime) as engine:
        pid = engine.facts["pid"]

        def kill(progress) -> None:
            os.kill(pid, signal.SIGKILL)

        with pytest.raises(EngineError, match="the engine died") as caught:
            engine.run(command(40, 400), kill)
        assert "pdswitch: ready after" in str(caught.value)
    with opened(spec, runtime) as engine:
        assert engine.facts["pid"] != pid
        engine.run(command(6, 5), lambda p: None)


def test_other_settings_replace_the_engine_and_idle_ones_leave(spec, runtime):
    import msgspec

    with opened(spec, runtime) as engine:
        first = engine.facts["pid"]
    said: list[str] = []
    other = msgspec.structs.replace(spec, n_slots=3)
    with opened(other, runtime, said, idle=1.0) as engine:
        second = engine.facts["pid"]
        assert engine.facts["n_slots"] == 3
    assert "replacing an engine with other settings" in said
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == "zombie"
    deadline = time.monotonic() + 20
    while second in engine_pids(runtime) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert second not in engine_pids(runtime)
    assert not DeviceDirectory(spec.device_label, runtime).socket.exists()


def test_an_engine_that_cannot_start_says_why(spec, runtime, tmp_path):
    import msgspec

    missing = msgspec.structs.replace(spec, model=str(tmp_path / "no-such-model"))
    with pytest.raises(EngineError, match="no-such-model"), opened(missing, runtime):
        pytest.fail("an engine without a model must not open")
