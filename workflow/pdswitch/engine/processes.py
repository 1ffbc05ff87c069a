"""Processes that can be told apart for good, and the end of an engine with all that it started.

A process is named by its id and its start time in clock ticks since boot: ids are used again, and
the wall clock may be set while a process runs. Reads Linux's /proc.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOST_MODULE = "pdswitch.engine.host"
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05
START_TIME_FIELD = 19  # of /proc/PID/stat, counted from the state, which follows the name
STATE_FIELD = 0
GROUP_FIELD = 2
DEAD_STATES = {"Z", "X"}
PR_SET_PDEATHSIG = 1


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it has ended."""
    fields = _stat(pid)
    return None if fields is None else int(fields[START_TIME_FIELD])


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process, not a later one of the same id, is still running."""
    return start_time(pid) == started


def end_engine(pid: int, started: int) -> None:
    """End an engine and all its processes; return when they have gone, and their memory with them.

    A process that is not an engine, because the id was used again, is left alone.

    Raises:
        TimeoutError: if they do not go even when killed.
    """
    now = start_time(pid)
    if now is not None and (now != started or not _is_engine(pid)):
        return
    if now is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while is_alive(pid, started) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    # While a process of its group is left, the system gives the id to nobody else.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while group := _group(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {group} of an engine do not end, even when killed")
        time.sleep(POLL_S)


def end_group_with_this_process() -> None:
    """See to it that the processes of this one's group do not outlive it, however it ends.

    vLLM's engine core would otherwise keep the device's memory after its parent was killed.
    """
    code = f"from {__name__} import watch; watch({os.getpid()})"
    subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def watch(parent: int) -> None:
    """Wait for the end of the parent process, then kill this process's group, itself included."""
    signals = {signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    while os.getppid() == parent:  # it may have ended before the signal was asked for
        signal.sigwait(signals)
    os.killpg(0, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    """Return a process's fields of /proc/PID/stat from the state on; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may itself contain brackets and blanks.
    fields = text.rpartition(")")[2].split()
    return None if fields[STATE_FIELD] in DEAD_STATES else fields


def _is_engine(pid: int) -> bool:
    try:
        return HOST_MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _group(leader: int) -> list[int]:
    """Return the processes of a group that have not ended."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if fields is not None and int(fields[GROUP_FIELD]) == leader:
                members.append(int(entry.name))
    return members
