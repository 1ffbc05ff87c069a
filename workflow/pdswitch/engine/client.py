"""A job's side of the warm engine: start it or reuse it, and send it runs.

Imports neither torch nor vLLM, so that a job starts in a moment.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil
from filelock import FileLock, Timeout

from pdswitch.engine.device import DeviceDirectory, EngineNote
from pdswitch.engine.protocol import (
    SAY_PREFIX,
    Description,
    Failure,
    FromHost,
    Hello,
    Progress,
    RunCommand,
    RunResult,
    receive,
    send,
)
from pdswitch.engine.spec import EngineSpec

LOG_TAIL_LINES = 30
POLL_S = 0.1
STOP_TIMEOUT_S = 20.0
LAST_WORDS_S = 5.0

Say = Callable[[str], None]


class EngineError(RuntimeError):
    """The engine did not start, died, or refused a run; the message says why."""


class Engine:
    """A connection to the engine of one device. Made by `open_engine`."""

    def __init__(self, connection: socket.socket, note: EngineNote, owner: Hello) -> None:
        self._connection = connection
        self._log = Path(note.log)
        self._pid = note.pid
        self.description: Description = self._ask(owner)

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine is, as it goes into the results."""
        return self.description.facts

    def run(self, command: RunCommand, progress: Callable[[Progress], None]) -> RunResult:
        """Serve one run; `progress` is called now and then.

        Raises:
            EngineError: if the engine refuses the run, or dies during it.
        """
        result: RunResult = self._ask(command, progress)
        return result

    def _ask(self, message: Any, progress: Callable[[Progress], None] | None = None) -> Any:
        try:
            send(self._connection, message)
            while True:
                answer = receive(self._connection, FromHost)
                if not isinstance(answer, Progress):
                    break
                if progress is not None:
                    progress(answer)
        except OSError as error:
            raise EngineError(self._died()) from error
        if answer is None:
            raise EngineError(self._died())
        if isinstance(answer, Failure):
            raise EngineError(f"the engine refused: {answer.message}")
        return answer

    def _died(self) -> str:
        # Its last words may still be on the way to the log.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            psutil.Process(self._pid).wait(LAST_WORDS_S)
        return _died(self._log)


@contextlib.contextmanager
def open_engine(
    spec: EngineSpec,
    *,
    idle_timeout_s: float,
    start_timeout_s: float,
    log_folder: Path,
    say: Say,
    root: Path | None = None,
) -> Iterator[Engine]:
    """Hold the device and give its engine, which is started or replaced if need be.

    The device is held until the context ends: two jobs never measure on it at the same time.

    Args:
        spec: the engine wanted.
        idle_timeout_s: after so many seconds without work the engine leaves.
        start_timeout_s: how long the engine may take to get ready.
        log_folder: where the log of a newly started engine goes.
        say: takes lines about what is going on.
        root: folder of the device directories, for tests.

    Raises:
        EngineError: if it cannot be started; the message ends with the tail of its log.
    """
    directory = DeviceDirectory(spec.device_label, root)
    with _hold(directory, say):
        owner = workflow_process()
        connection = _connect(directory, spec.key(), say)
        if connection is None:
            connection = _start(
                spec, directory, owner, idle_timeout_s, start_timeout_s, log_folder, say
            )
        with connection:
            yield Engine(connection, _read_note(directory), owner)


def workflow_process() -> Hello:
    """Find the workflow this job belongs to: its outermost ancestor that is a snakemake."""
    found = Hello()
    for process in psutil.Process().parents():
        try:
            command = process.cmdline()
        except psutil.Error:  # ended, or another user's: not our workflow
            continue
        if any("snakemake" in Path(word).name for word in command[:3]):
            found = Hello(process.pid, process.create_time())
    return found


@contextlib.contextmanager
def _hold(directory: DeviceDirectory, say: Say) -> Iterator[None]:
    lock = FileLock(directory.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with contextlib.suppress(FileNotFoundError):
            say(f"waiting for the device: {directory.holder.read_text()}")
        lock.acquire()
    try:
        directory.holder.write_text(f"process {os.getpid()} in {Path.cwd()} is using it")
        yield
    finally:
        lock.release()


def _read_note(directory: DeviceDirectory) -> EngineNote:
    return msgspec.json.decode(directory.note.read_bytes(), type=EngineNote)


def _connect(directory: DeviceDirectory, key: str, say: Say) -> socket.socket | None:
    """Connect to a running engine of this key; end one of another, clear away a dead one."""
    try:
        note = _read_note(directory)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(directory.socket))
    except OSError:
        connection.close()
        _stop(note, directory)
        return None
    if note.key == key:
        return connection
    connection.close()
    say("replacing an engine with other settings")
    _stop(note, directory)
    return None


def _stop(note: EngineNote, directory: DeviceDirectory) -> None:
    """End the engine of a note, if it is still that process, and wait until it has gone."""
    try:
        process = psutil.Process(note.pid)
        if abs(process.create_time() - note.started) < 1.0:
            family = [process, *process.children(recursive=True)]
            process.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
            for survivor in alive:
                survivor.kill()
            psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    except psutil.NoSuchProcess:
        pass  # it has gone by itself, which is what is wanted
    directory.note.unlink(missing_ok=True)
    directory.socket.unlink(missing_ok=True)


def _start(
    spec: EngineSpec,
    directory: DeviceDirectory,
    owner: Hello,
    idle_timeout_s: float,
    start_timeout_s: float,
    log_folder: Path,
    say: Say,
) -> socket.socket:
    log_folder.mkdir(parents=True, exist_ok=True)
    log = log_folder.absolute() / f"{datetime.now():%Y%m%d-%H%M%S}-{spec.key()}.log"
    directory.spec.write_bytes(msgspec.json.encode(spec))
    command = [sys.executable, "-m", "pdswitch.engine.host"]
    command += ["--directory", str(directory.path), "--log", str(log)]
    command += ["--idle-timeout-s", str(idle_timeout_s)]
    if owner.owner_pid is not None:
        command += ["--owner-pid", str(owner.owner_pid)]
        command += ["--owner-started", str(owner.owner_started)]
    source = str(Path(__file__).resolve().parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | spec.environment
    say(f"starting the engine; its log is {log}")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C ends the workflow, and the engine leaves by its own rules.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        return _await_start(process, directory, log, time.monotonic() + start_timeout_s, say)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        raise


def _await_start(
    process: subprocess.Popen[bytes],
    directory: DeviceDirectory,
    log: Path,
    deadline: float,
    say: Say,
) -> socket.socket:
    with log.open(encoding="utf-8", errors="replace") as lines:
        while time.monotonic() < deadline:
            _relay(lines, say)
            if process.poll() is not None:
                _relay(lines, say)
                raise EngineError(_died(log))
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
                if _read_note(directory).pid == process.pid:
                    connection = socket.socket(socket.AF_UNIX)
                    connection.connect(str(directory.socket))
                    _relay(lines, say)
                    return connection
            time.sleep(POLL_S)
    raise EngineError(
        f"the engine was not ready in time; raise engine.start_timeout_s if it needs longer. "
        f"{_tail(log)}"
    )


def _relay(lines: IO[str], say: Say) -> None:
    for line in lines:
        if line.startswith(SAY_PREFIX):
            say(line.removeprefix(SAY_PREFIX).rstrip())


def _died(log: Path) -> str:
    return f"the engine died. {_tail(log)}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"The end of its log {log}:", *("  " + line for line in lines)])
