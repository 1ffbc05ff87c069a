"""A job's side of the warm engine: start it or reuse it, and send it runs.

Imports neither torch nor vLLM, so that a job starts in a moment.
"""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psutil
from filelock import FileLock, Timeout

from pdswitch.engine.claims import claim
from pdswitch.engine.device import DeviceDirectory, EngineNote, Holder, read_note, write_note
from pdswitch.engine.environment import engine_environment
from pdswitch.engine.gpus import device_names
from pdswitch.engine.processes import HOST_MODULE, end_engine, start_time
from pdswitch.engine.protocol import (
    SAY_PREFIX,
    VERSION,
    Description,
    Failure,
    FromHost,
    Hello,
    Notice,
    Progress,
    ProtocolError,
    RunCommand,
    RunResult,
    encode,
    peer_of,
    receive,
)
from pdswitch.engine.spec import EngineSpec
from pdswitch.errors import UserError

LOG_TAIL_LINES = 30
POLL_S = 0.1
LAST_WORDS_S = 5.0
RUN_TIMEOUT_S = 86400.0
# Limit for the hello; a busy engine answers after its current step.
HELLO_TIMEOUT_S = 60.0

Say = Callable[[str], None]


class EngineError(UserError, RuntimeError):
    """The engine did not start, died, or refused a run; the message says why."""


class EngineGoneError(EngineError):
    """The engine died, or does not answer."""


class EngineStartError(EngineGoneError):
    """The engine did not get ready, which it will not do the next time either."""


class Engine:
    """A connection to the engine of one device. Made by `open_engine`."""

    def __init__(
        self,
        connection: socket.socket,
        note: EngineNote,
        owner: Hello,
        run_timeout_s: float,
        say: Say,
    ) -> None:
        self._connection = connection
        self._note = note
        self._say = say
        self._run_timeout_s = run_timeout_s
        try:
            self.description: Description = self._ask(owner, HELLO_TIMEOUT_S)
        except TimeoutError as error:
            raise EngineGoneError(f"the engine does not answer. {_tail(note.log)}") from error

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine is, as it goes into the results."""
        return self.description.facts

    def close(self) -> None:
        """Hang up; the engine drops what it was doing for this client."""
        self._connection.close()

    def run(self, command: RunCommand, progress: Callable[[Progress], None]) -> RunResult:
        """Serve one run; `progress` is called now and then.

        Raises:
            EngineError: if the engine refuses the run, dies during it, or takes too long. Too long
                ends the connection, upon which the engine drops the run.
        """
        try:
            result: RunResult = self._ask(command, self._run_timeout_s, progress)
        except TimeoutError as error:
            self.close()
            raise EngineError(
                f"the run was given up because it took longer than {self._run_timeout_s:g} s; "
                "raise engine.run_timeout_s, or ask for fewer requests or tokens"
            ) from error
        return result

    def _ask(
        self,
        message: Any,
        timeout_s: float,
        progress: Callable[[Progress], None] | None = None,
    ) -> Any:
        deadline = time.monotonic() + timeout_s
        frame = encode(message)
        try:
            self._connection.settimeout(timeout_s)
            self._connection.sendall(frame)
            while True:
                # Zero would mean: do not wait at all.
                self._connection.settimeout(max(deadline - time.monotonic(), 1e-3))
                answer = receive(self._connection, FromHost)
                if isinstance(answer, Notice):
                    self._say(answer.text)
                elif not isinstance(answer, Progress):
                    break
                elif progress is not None:
                    progress(answer)
                if time.monotonic() > deadline:
                    raise TimeoutError
        except (ConnectionError, ProtocolError) as error:
            raise EngineGoneError(self._died()) from error
        if answer is None:
            raise EngineGoneError(self._died())
        if isinstance(answer, Failure):
            raise EngineError(f"the engine refused: {answer.message}")
        return answer

    def _died(self) -> str:
        # Its last words may still be on the way to the log.
        deadline = time.monotonic() + LAST_WORDS_S
        while self._note.alive and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return f"the engine died. {_tail(self._note.log)}"


@contextlib.contextmanager
def open_engine(
    spec: EngineSpec,
    *,
    idle_timeout_s: float,
    start_timeout_s: float,
    run_timeout_s: float = RUN_TIMEOUT_S,
    log_folder: Path,
    say: Say,
    root: Path | None = None,
    still_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Engine | None]:
    """Hold the devices and give their engine, which is started or replaced if need be.

    The devices are held until the context ends: two jobs never measure on one at the same time.
    They belong to the job's workflow, if it has one, until that ends.

    Args:
        spec: the engine wanted.
        idle_timeout_s: after so many seconds without work the engine leaves.
        start_timeout_s: how long the engine may take to get ready.
        run_timeout_s: how long one run may take.
        log_folder: where the log of a newly started engine goes.
        say: takes lines about what is going on.
        root: folder of the device directories, for tests.
        still_wanted: asked once the devices are held, which may have taken hours; if not, None is
            given in place of an engine.

    Raises:
        EngineError: if it cannot be started; the message ends with the tail of its log.
    """
    # Before any waiting: a workflow that ends meanwhile is nobody's ancestor any more.
    owner = workflow_process()
    _refuse_orphan(owner)
    directories = [DeviceDirectory(device, root) for device in device_names(spec)]
    with _hold(directories, owner, say):
        if not still_wanted():
            yield None
            return
        engine = _reuse(spec.key(), directories, owner, start_timeout_s, run_timeout_s, say)
        if engine is None:
            note = _start(spec, directories, owner, idle_timeout_s, log_folder, say)
            try:
                connection = _await_ready(directories[0], note, owner, start_timeout_s, say)
                engine = Engine(connection, note, owner, run_timeout_s, say)
            except BaseException:
                for directory in directories:
                    _clear(directory, note)
                raise
        with contextlib.closing(engine):
            yield engine


def workflow_process() -> Hello:
    """Find the workflow this job belongs to: its outermost ancestor that is a snakemake.

    One that was killed while the job started is nobody's ancestor any more. `PDSWITCH_WORKFLOW`,
    process id and start time, still names it; the rules' commands set it.
    """
    named = os.environ.get("PDSWITCH_WORKFLOW")
    found = Hello(VERSION, *map(int, named.split(":"))) if named else Hello(VERSION)
    for process in psutil.Process().parents():
        try:
            command = process.cmdline()
        except psutil.Error:  # ended, or another user's: not our workflow
            continue
        if any("snakemake" in Path(word).name for word in command[:3]):
            found = Hello(VERSION, process.pid, start_time(process.pid))
    return found


def _refuse_orphan(owner: Hello) -> None:
    """Stop a job that has outlived its workflow: nobody waits for its result."""
    if owner.orphaned:
        raise EngineError("the workflow of this job has ended")


@contextlib.contextmanager
def _hold(directories: Sequence[DeviceDirectory], owner: Hello, say: Say) -> Iterator[None]:
    """Claim devices for the job's workflow, then lock them, in the order of their names."""
    me = os.getpid()
    holder = Holder(me, start_time(me) or 0, str(Path.cwd()))
    if owner.owner_pid is not None and owner.owner_started is not None:
        _claim(directories, Holder(owner.owner_pid, owner.owner_started, holder.folder), owner, say)
    with contextlib.ExitStack() as locks:
        for directory in directories:
            locks.enter_context(_locked(directory, owner, say))
            write_note(directory.holder, holder)
        yield


def _claim(
    directories: Sequence[DeviceDirectory], workflow: Holder, owner: Hello, say: Say
) -> None:
    named = None
    while (other := claim(directories, workflow)) is not None:
        _refuse_orphan(owner)
        if other != named:
            say(f"waiting for the device: workflow {other.pid} in {other.folder} measures on it")
            named = other
        time.sleep(POLL_S)


@contextlib.contextmanager
def _locked(directory: DeviceDirectory, owner: Hello, say: Say) -> Iterator[None]:
    lock = FileLock(directory.lock)
    named = None
    while True:
        try:
            lock.acquire(timeout=POLL_S, poll_interval=POLL_S)
            break
        except Timeout:
            _refuse_orphan(owner)
            holder = read_note(directory.holder, Holder)
            if holder is not None and holder != named and holder.alive:
                say(f"waiting for the device: process {holder.pid} in {holder.folder} is using it")
                named = holder
    try:
        yield
    finally:
        lock.release()


def _reuse(
    key: str,
    directories: Sequence[DeviceDirectory],
    owner: Hello,
    start_timeout_s: float,
    run_timeout_s: float,
    say: Say,
) -> Engine | None:
    """Connect to the devices' engine if its key is this one; end any other, clear away a dead one.

    It may still be starting, for a client that has gone since, or be about to leave. Another may
    take only some of these devices, and others besides.
    """
    home = directories[0]
    notes = [read_note(directory.note, EngineNote) for directory in directories]
    note = notes[0]
    gone = None
    if note is not None and note.alive and note.key == key and notes == [note] * len(notes):
        try:
            connection = _connect(home)
            if connection is None:
                connection = _await_ready(home, note, owner, start_timeout_s, say)
            return Engine(connection, note, owner, run_timeout_s, say)
        except EngineGoneError as error:
            say(f"starting anew: {str(error).partition('. ')[0]}")
            gone = note
    for directory, note in zip(directories, notes, strict=True):
        if note is None:
            _end_unnamed(directory, say)
            continue
        if note.alive and note != gone:
            say("replacing an engine with other settings")
        _clear(directory, note)
    return None


def _end_unnamed(directory: DeviceDirectory, say: Say) -> None:
    """End an engine whose note is missing or of another version: its socket knows its process."""
    connection = _connect(directory)
    if connection is None:
        return
    with connection:
        pid, _ = peer_of(connection)
    started = start_time(pid)
    if started is not None:
        say("replacing an engine of another version")
        end_engine(pid, started)


def _clear(directory: DeviceDirectory, note: EngineNote) -> None:
    """End the engine of a note, if it still is that process, and remove its traces.

    Those in the folders of other devices stay: whoever holds them may have a new engine there.
    """
    end_engine(note.pid, note.started, note.log)
    directory.note.unlink(missing_ok=True)
    directory.socket.unlink(missing_ok=True)


def _start(
    spec: EngineSpec,
    directories: Sequence[DeviceDirectory],
    owner: Hello,
    idle_timeout_s: float,
    log_folder: Path,
    say: Say,
) -> EngineNote:
    home = directories[0]
    log_folder.mkdir(parents=True, exist_ok=True)
    log = log_folder.absolute() / log_name(spec.key())
    write_note(home.spec, spec)
    home.socket.unlink(missing_ok=True)
    # -P: a module in the workflow's folder must not stand in for one of the environment.
    command = [sys.executable, "-P", "-m", HOST_MODULE, "--directory", str(home.path)]
    command += ["--idle-timeout-s", str(idle_timeout_s)]
    if owner.owner_pid is not None:
        command += ["--owner-pid", str(owner.owner_pid)]
        command += ["--owner-started", str(owner.owner_started)]
    source = str(Path(__file__).resolve().parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    starter = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    say(f"starting the engine; its log is {log}")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C ends the workflow, and the engine leaves by its own rules.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=engine_environment(starter, spec.environment, spec.visible_devices),
            start_new_session=True,
        )
    # Named before it is ready: the next client must find it even if this one dies now.
    note = EngineNote(process.pid, start_time(process.pid) or 0, spec.key(), str(log))
    try:
        # At home last: an engine that is not named there leaves by itself.
        for directory in reversed(directories):
            write_note(directory.note, note)
    except BaseException:
        end_engine(note.pid, note.started, note.log)
        raise
    return note


def log_name(key: str) -> str:
    """Name the log of an engine: on a cluster several with one key start in the same second."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{key}-{socket.gethostname()}-{os.getpid()}.log"


def _connect(directory: DeviceDirectory) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(POLL_S)
    try:
        connection.connect(str(directory.socket))
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError, TimeoutError):
        connection.close()
        return None
    _, user = peer_of(connection)
    if user != os.getuid():
        connection.close()
        raise EngineError(
            f"the engine behind {directory.socket} is another user's; "
            "set PDSWITCH_RUNTIME_DIR to a folder of your own"
        )
    return connection


def _await_ready(
    directory: DeviceDirectory, note: EngineNote, owner: Hello, timeout_s: float, say: Say
) -> socket.socket:
    """Wait until the engine of a note serves, passing on what it says, and connect to it."""
    deadline = time.monotonic() + timeout_s
    with _open_log(note.log) as lines:
        while time.monotonic() < deadline:
            alive = note.alive
            connection = _connect(directory)
            _relay(lines, say)
            if connection is not None:
                return connection
            if not alive:
                tail = _tail(note.log)
                # It says itself why it ends; one that is killed says nothing.
                kind = EngineStartError if "Traceback" in tail else EngineGoneError
                raise kind(f"the engine died. {tail}")
            _refuse_orphan(owner)
            time.sleep(POLL_S)
    raise EngineStartError(
        f"the engine was not ready in time; raise engine.start_timeout_s if it needs longer. "
        f"{_tail(note.log)}"
    )


def _open_log(log: str) -> IO[str]:
    try:
        return Path(log).open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return io.StringIO()  # somebody has tidied up; the engine is there all the same


def _relay(lines: IO[str], say: Say) -> None:
    for line in lines:
        if line.startswith(SAY_PREFIX):
            say(line.removeprefix(SAY_PREFIX).rstrip())


def _tail(log: str) -> str:
    if not Path(log).is_file():
        return f"Its log {log} was removed."
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()[-LOG_TAIL_LINES:]
    full = " on a full disk" if shutil.disk_usage(Path(log).parent).free == 0 else ""
    return "\n".join([f"The end of its log {log}{full}:", *("  " + line for line in lines)])
