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


def end_engine(pid: int, started: int, log: str | None = None) -> None:
    """End an engine and all its processes; return when they have gone, and their memory with them.

    A process that is not an engine, because the id was used again, is left alone, and so is a group
    that somebody else leads or has led since.

    Args:
        pid: the engine's process, which leads its group.
        started: see `start_time`.
        log: where the engine writes. Of one that has gone already, only processes that write there
            are known to be its own.

    Raises:
        TimeoutError: if they do not go even when killed.
    """
    known: set[tuple[int, int]] = set()
    if is_alive(pid, started):
        if not _is_engine(pid):
            return
        known |= _group(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while is_alive(pid, started) and time.monotonic() < deadline:
            known |= _group(pid)
            time.sleep(POLL_S)
    # Ids of processes and groups are used again, but not while one member of the group is left.
    members = _group(pid)
    if not any(member in known or _writes_to(member[0], log) for member in members):
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while left := [member for member, since in members if is_alive(member, since)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} of an engine do not end, even when killed")
        time.sleep(POLL_S)


def end_group_with_this_process() -> None:
    """See to it that the processes of this one's group do not outlive it, however it ends.

    vLLM's engine core would otherwise keep the device's memory after its parent was killed.
    """
    if os.getpgrp() != os.getpid():
        # Started by hand, in the group of somebody's shell or script.
        os.setpgrp()
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


def _writes_to(pid: int, log: str | None) -> bool:
    """Whether a process has this file as its output or its error output."""
    if log is None:
        return False
    for descriptor in (1, 2):
        try:
            target = str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
        except OSError:  # ended, another user's, or closed
            continue
        if target.removesuffix(" (deleted)") == os.path.realpath(log):
            return True
    return False


def _group(leader: int) -> set[tuple[int, int]]:
    """Return the processes of a group that have not ended: ids and start times."""
    members = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if fields is not None and int(fields[GROUP_FIELD]) == leader:
                members.add((int(entry.name), int(fields[START_TIME_FIELD])))
    return members
