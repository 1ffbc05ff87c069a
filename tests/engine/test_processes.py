"""Processes are told apart for good, and nothing of an engine outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pdswitch.engine.processes import HOST_MODULE, end_engine, is_alive, start_time

# Looks like a host by its arguments, has a watcher and a child, and says their ids.
HOST = """
import signal, subprocess, sys, time
from pdswitch.engine.processes import end_group_with_this_process
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
end_group_with_this_process()
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def log(tmp_path) -> Path:
    """Where the hosts write their errors."""
    return tmp_path / "host.log"


@pytest.fixture
def start(root, log):
    hosts = []

    def start(*arguments: str) -> tuple[subprocess.Popen, int]:
        host = subprocess.Popen(
            [sys.executable, "-c", HOST, HOST_MODULE, *arguments],
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            env=os.environ | {"PYTHONPATH": str(root / "workflow")},
            text=True,
            start_new_session=True,
        )
        hosts.append(host)
        return host, int(host.stdout.readline())

    yield start
    for host in hosts:
        host.kill()
        host.wait()
        host.stdout.close()


def members(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != "zombie":
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


def await_empty(group: int) -> None:
    deadline = time.monotonic() + 10
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(group) == []


def test_a_process_is_known_by_its_start():
    me = os.getpid()
    started = start_time(me)
    assert is_alive(me, started)
    assert not is_alive(me, started + 1)
    ended = subprocess.Popen(["true"])
    before = start_time(ended.pid)
    deadline = time.monotonic() + 10
    while before is not None and is_alive(ended.pid, before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert start_time(ended.pid) is None  # a zombie, not yet waited for
    ended.wait()
    assert start_time(ended.pid) is None


def test_a_name_with_brackets_and_blanks_is_read_right(tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(odd), "60"])
    try:
        # psutil counts in seconds since boot, with this process's as a reference for the clock.
        expected = psutil.Process(process.pid).create_time() - psutil.Process().create_time()
        found = (start_time(process.pid) - start_time(os.getpid())) / os.sysconf("SC_CLK_TCK")
        assert found == pytest.approx(expected, abs=0.05)
    finally:
        process.kill()
        process.wait()


def test_an_engine_ends_with_its_children(start):
    host, child = start()
    end_engine(host.pid, start_time(host.pid))
    assert members(host.pid) == []
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_one_that_does_not_listen_is_killed(start, monkeypatch):
    monkeypatch.setattr("pdswitch.engine.processes.STOP_TIMEOUT_S", 0.5)
    host, _ = start("deaf")
    end_engine(host.pid, start_time(host.pid))
    assert members(host.pid) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_host_that_is_killed(start, number):
    host, _ = start()
    assert len(members(host.pid)) == 3
    host.send_signal(number)
    await_empty(host.pid)


def test_of_an_engine_killed_before_nothing_is_left(start, log):
    host, _ = start()
    started = start_time(host.pid)
    # Without its watcher: that would end the group by itself.
    for process in psutil.Process(host.pid).children():
        if "watch" in str(process.cmdline()):
            process.kill()
    host.kill()
    host.wait()
    assert members(host.pid) != []
    end_engine(host.pid, started, str(log))
    assert members(host.pid) == []


def test_a_log_that_was_removed_still_tells_whose_group_it_is(start, log):
    host, _ = start()
    started = start_time(host.pid)
    os.kill(psutil.Process(host.pid).children()[0].pid, signal.SIGSTOP)
    log.unlink()
    host.kill()
    host.wait()
    end_engine(host.pid, started, str(log))
    assert members(host.pid) == []


# Leads a group, leaves a process in it, and ends.
LEADER = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=2).pid, flush=True)"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shift", [0, 1, -1])
def test_a_stranger_s_group_with_the_id_of_an_engine_is_left_alone(tmp_path, shift, known):
    with (tmp_path / "strangers.log").open("wb") as log:
        leader = subprocess.Popen(
            [sys.executable, "-c", LEADER],
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        child = int(leader.stdout.readline())
    try:
        leader.communicate()
        started = start_time(child) + shift
        end_engine(leader.pid, started, str(tmp_path / "engine.log") if known else None)
        assert start_time(child) is not None
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_host_started_from_a_script_does_not_end_the_script(root, log):
    script = subprocess.Popen(
        ["sh", "-c", 'sleep 60 & "$@" & wait', "sh", sys.executable, "-c", HOST, HOST_MODULE],
        stdout=subprocess.PIPE,
        stderr=log.open("ab"),
        env=os.environ | {"PYTHONPATH": str(root / "workflow")},
        text=True,
        start_new_session=True,
    )
    try:
        child = psutil.Process(int(script.stdout.readline()))
        host = child.parent()
        group = os.getpgid(host.pid)
        assert group == host.pid
        host.kill()
        await_empty(group)
        assert script.poll() is None
    finally:
        os.killpg(script.pid, signal.SIGKILL)
        script.communicate()


@pytest.mark.parametrize("shift", [0, 1])
def test_a_stranger_with_the_id_of_an_engine_is_left_alone(shift):
    # shift 0: even the start time is the same; it is no engine by its command.
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        end_engine(stranger.pid, start_time(stranger.pid) + shift)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
