"""The client without vLLM: engines that die at once, hang, take too long or are not ours."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from pdswitch.engine import client
from pdswitch.engine.client import EngineError, open_engine, workflow_process
from pdswitch.engine.device import DeviceDirectory, EngineNote, Holder, write_note
from pdswitch.engine.processes import HOST_MODULE, is_alive, start_time
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.engine.spec import EngineSpec
from pdswitch.plugin.policy import Policy
from stand_in_engine import ServedStandIn

# Python itself refuses to start.
BROKEN = {"PYTHONHOME": "/nowhere"}
SPEC = EngineSpec(
    model="m",
    n_slots=2,
    max_model_len=10,
    max_num_batched_tokens=10,
    device="cpu",
    environment=BROKEN,
)

# Looks like a host, listens, and never answers.
MUTE = """
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[2])
server.listen()
print("listening", flush=True)
time.sleep(60)
"""


def opened(root: Path, said: list[str] | None = None, **options):
    options = {"start_timeout_s": 30, "log_folder": root / "logs"} | options
    return open_engine(
        SPEC,
        idle_timeout_s=60,
        say=(said if said is not None else []).append,
        root=root,
        **options,
    )


def fails(root: Path, said: list[str] | None = None, **options) -> str:
    with pytest.raises(EngineError) as caught, opened(root, said, **options):
        pytest.fail("it must not open")
    return str(caught.value)


def command(tokens: int) -> RunCommand:
    return RunCommand(Policy(), [Request("a", [1], tokens, True)], {})


@pytest.fixture
def served(tmp_path):
    stand_in = ServedStandIn(tmp_path, key=SPEC.key())
    yield stand_in
    stand_in.stop()


def test_an_engine_that_dies_at_once_is_said_with_its_log_and_leaves_no_trace(tmp_path):
    message = fails(tmp_path)
    assert message.startswith("the engine died. The end of its log")
    assert "Fatal Python error" in message
    directory = DeviceDirectory("cpu", tmp_path)
    assert not directory.note.exists()
    assert not directory.socket.exists()
    # The lock is free again.
    assert fails(tmp_path).startswith("the engine died")


def test_a_log_on_a_full_disk_is_said(tmp_path, small_disk):
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert " on a full disk:" in fails(tmp_path, log_folder=small_disk / "logs")


def test_a_served_client_gets_its_runs(served, tmp_path):
    with opened(tmp_path) as engine:
        assert engine.facts["pid"] == os.getpid()
        assert engine.run(command(3), lambda p: None).record == b"x" * 10


def test_a_machine_that_is_not_quiet_is_said_before_the_run_and_kept_with_it(served, tmp_path):
    said: list[str] = []
    progress: list[object] = []
    served.engine.notices = ["the machine is not quiet: …"]
    with opened(tmp_path, said) as engine:
        result = engine.run(command(3), progress.append)
    assert said == served.engine.notices
    assert len(progress) == 3
    assert result.conditions["self_check"] == {"warnings": said}


def test_a_run_over_its_time_is_given_up(served, tmp_path):
    with (
        opened(tmp_path, run_timeout_s=0.3) as engine,
        pytest.raises(EngineError, match=r"took longer than 0.3 s; raise engine\.run_timeout_s"),
    ):
        engine.run(command(10_000), lambda p: None)
    with opened(tmp_path, run_timeout_s=30) as engine:
        engine.run(command(3), lambda p: None)
    assert (served.engine.aborted, served.engine.finished) == (1, 1)


def test_another_user_s_engine_is_not_talked_to(served, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "peer_of", lambda connection: (1, os.getuid() + 1))
    assert "is another user's; set PDSWITCH_RUNTIME_DIR" in fails(tmp_path)


def test_an_engine_that_does_not_answer_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "HELLO_TIMEOUT_S", 0.3)
    directory = DeviceDirectory("cpu", tmp_path)
    mute = subprocess.Popen(
        [sys.executable, "-c", MUTE, HOST_MODULE, str(directory.socket)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        mute.stdout.readline()
        started = start_time(mute.pid)
        note = EngineNote(mute.pid, started, SPEC.key(), str(tmp_path / "no-log"))
        write_note(directory.note, note)
        said: list[str] = []
        assert fails(tmp_path, said).startswith("the engine died")  # the new one
        assert "starting anew: the engine does not answer" in said
        assert not is_alive(mute.pid, started)
    finally:
        mute.kill()
        mute.communicate()


def test_a_removed_log_is_no_reason_not_to_wait(tmp_path):
    directory = DeviceDirectory("cpu", tmp_path)
    starting = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", HOST_MODULE], start_new_session=True
    )
    try:
        note = EngineNote(starting.pid, start_time(starting.pid), SPEC.key(), str(tmp_path / "x"))
        write_note(directory.note, note)
        said: list[str] = []
        fails(tmp_path, said, start_timeout_s=0.5)
        assert any(
            line.endswith("raise engine.start_timeout_s if it needs longer") for line in said
        )
        assert starting.wait(10)
    finally:
        starting.kill()
        starting.wait()


def test_a_stale_socket_is_no_engine(tmp_path):
    directory = DeviceDirectory("cpu", tmp_path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory.socket))
    directory.note.write_text("{half a no")
    assert fails(tmp_path).startswith("the engine died")


def test_a_job_whose_workflow_ends_while_it_waits_gives_up(tmp_path, root):
    directory = DeviceDirectory("cpu", tmp_path)
    # A snakemake, by its name, and below it a job that waits for the device.
    job = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_client as t\n"
        "try:\n"
        "    with t.opened(Path(sys.argv[2]), run_timeout_s=5):\n"
        "        pass\n"
        "except t.EngineError as error:\n"
        "    Path(sys.argv[2], 'said').write_text(str(error))\n"
    )
    workflow = (
        "import subprocess, sys, time\n"
        "process = subprocess.Popen([sys.executable, *sys.argv[2:]])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    script = tmp_path / "snakemake"
    script.write_text(workflow)
    with client._hold([directory], workflow_process(), print):
        process = subprocess.Popen(
            [
                *(sys.executable, str(script), "x", "-c", job),
                *(str(root / "tests/engine"), str(tmp_path)),
            ],
            env=os.environ | {"PYTHONPATH": f"{root}/workflow:{root}/tests/support"},
            stdout=subprocess.PIPE,
            text=True,
        )
        waiting = int(process.stdout.readline())
        time.sleep(2)
        assert start_time(waiting) is not None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        deadline = time.monotonic() + 10
        while start_time(waiting) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
    assert (tmp_path / "said").read_text() == "the workflow of this job has ended"


def test_a_job_whose_workflow_was_killed_before_it_could_look_starts_nothing(tmp_path, monkeypatch):
    # It has no snakemake among its ancestors any more; the rules' commands name the one it had.
    workflow = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    named = f"{workflow.pid}:{start_time(workflow.pid)}"
    monkeypatch.setenv("PDSWITCH_WORKFLOW", named)
    assert workflow_process().owner_pid == workflow.pid
    workflow.communicate()
    assert fails(tmp_path) == "the workflow of this job has ended"
    assert not (tmp_path / "logs").exists()


def test_who_holds_the_device_is_told_once_and_only_while_it_lives(tmp_path):
    directory = DeviceDirectory("cpu", tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from pathlib import Path\n"
            "from pdswitch.engine import client\n"
            "from pdswitch.engine.device import DeviceDirectory\n"
            "with client._hold([DeviceDirectory('cpu', Path(sys.argv[1]))], "
            "client.workflow_process(), print):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(60)\n",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(client.__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        # Freed by the system when its holder is killed.
        subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {holder.pid}"])
        with client._hold([directory], workflow_process(), said.append):
            assert said == [
                f"waiting for the device: process {holder.pid} in {tmp_path} is using it"
            ]
            mine = msgspec.json.decode(directory.holder.read_bytes(), type=Holder)
            assert mine.pid == os.getpid()
    finally:
        holder.kill()
        holder.communicate()
