"""A real engine in a folder of the test: opening it, commands for it, and its processes."""

import contextlib
import os
import time
from pathlib import Path

import psutil

from pdswitch.engine.client import open_engine
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.engine.spec import EngineSpec
from pdswitch.plugin.policy import Policy

LONG = (40, 400)


def engine_pids(folder: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "pdswitch.engine.host" in (process.info["cmdline"] or [])
        and any(str(folder) in word for word in process.info["cmdline"])
    ]


def group_of(leader: int) -> list[psutil.Process]:
    """Return the living processes of an engine: host, watcher, and vLLM's own."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def await_gone(leader: int) -> None:
    deadline = time.monotonic() + 30
    while (left := group_of(leader)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def opened(
    spec: EngineSpec, folder: Path, said: list[str] | None = None, idle: float = 300.0, **options
):
    return open_engine(
        spec,
        idle_timeout_s=idle,
        start_timeout_s=240,
        log_folder=folder / "logs",
        say=(said if said is not None else []).append,
        root=folder,
        **options,
    )


def command(count: int = 6, tokens: int = 5) -> RunCommand:
    wanted = [Request(f"r{i}", [1, 2, 3], tokens, True) for i in range(count)]
    return RunCommand(Policy(kind="fixed", threshold=2), wanted, {"temperature": 0.0})
