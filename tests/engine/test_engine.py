"""The warm engine as a process with real vLLM: reuse, replacement, death of either side."""

import contextlib
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pdswitch.engine.client import EngineError
from pdswitch.engine.device import DeviceDirectory, EngineNote, Holder, read_note, write_note
from pdswitch.engine.protocol import (
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
from pdswitch.plugin.policy import Policy
from pdswitch.record import decode_record
from real_engine import LONG, await_gone, command, engine_pids, group_of, opened
from socket_fuzz import THIS_PROCESS, fuzz, random_content

pytestmark = pytest.mark.slow

BAD_FRAMES = 3000
SAMPLING_OPTIONS = [
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "seed"),
    *("stop", "stop_token_ids", "bad_words", "allowed_token_ids", "logit_bias", "logprobs", "n"),
    *("prompt_logprobs", "min_tokens", "max_tokens", "extra_args", "structured_outputs"),
    *("output_kind", "skip_special_tokens", "truncate_prompt_tokens"),
]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory) -> Iterator[Path | None]:
    """A disk of a few megabytes for the engines' temporary files; None where nobody may mount."""
    disk = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="module")
def spec(tiny_model, small_disk) -> EngineSpec:
    return EngineSpec(
        environment={"TMPDIR": str(small_disk)} if small_disk else {},
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


def serves(spec: EngineSpec, runtime: Path) -> int:
    """Check that a run works, and return the engine's process id."""
    with opened(spec, runtime) as engine:
        record = decode_record(engine.run(command(), lambda p: None).record)
        assert sum(row.output_tokens for row in record.requests) == 30
        return engine.facts["pid"]


class Client:
    """`engine_client.py` as a process, in a folder of its own."""

    def __init__(self, spec: EngineSpec, runtime: Path, folder: Path, *size: int) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
        script = Path(__file__).parents[1] / "support/engine_client.py"
        self.folder = folder
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(script), "spec.json", str(runtime), *map(str, size)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(script.parents[1] / "workflow")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def await_line(self, beginning: str) -> str:
        """Read until a line begins so, and return it."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(beginning):
                return line.rstrip()
        pytest.fail(f"no line {beginning!r} in {self.lines}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def finish(self) -> str:
        rest, _ = self.process.communicate()
        self.lines += rest.splitlines()
        return "\n".join(self.lines)


@contextlib.contextmanager
def connection_to(spec: EngineSpec, runtime: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(DeviceDirectory("cpu", runtime).socket))
        yield connection


# -- one engine, which nothing here ends ----------------------------------------------------------


def test_one_engine_serves_many_clients_and_loads_once(spec, runtime):
    pids, said = set(), []
    for _ in range(3):
        with opened(spec, runtime, said) as engine:
            record = decode_record(engine.run(command(), lambda p: None).record)
            assert sum(row.output_tokens for row in record.requests) == 30
            pids.add(engine.facts["pid"])
    assert len(pids) == 1
    assert sum(line.startswith("ready after") for line in said) == 1
    assert any(line.startswith("loading") for line in said)


def test_the_results_say_what_was_run_and_under_what_conditions(spec, runtime):
    with opened(spec, runtime) as engine:
        result = engine.run(command(), lambda p: None)
        facts = engine.facts
    known = ["vllm", "torch", "num_kv_blocks", "block_size", "source_digest", "seed", "key"]
    assert [name for name in known if facts[name] in (None, "")] == []
    # No NVIDIA driver is used by an engine on the CPU, whatever the machine has.
    assert facts["hardware"]["devices"] == []
    assert result.conditions["before"]["load_average"] >= 0
    check = result.conditions["self_check"]
    assert [step["batch_size"] for step in check["decode"]] == [1, 4]
    assert all(step["median_s"] > 0 for step in check["decode"])
    assert result.conditions["after"]["devices"] == []


def test_the_socket_is_closed_to_others(spec, runtime):
    with opened(spec, runtime):
        directory = DeviceDirectory("cpu", runtime)
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(directory.socket.stat().st_mode) == 0o600
    directory.path.chmod(0o755)
    try:
        with pytest.raises(PermissionError, match="mode 0700"):
            DeviceDirectory("cpu", runtime)
    finally:
        directory.path.chmod(0o700)


@pytest.mark.parametrize(
    ("requests", "policy", "sampling", "sentence"),
    [
        ([Request("a", [1], 3, True)], {"threshold": 9}, {}, "threshold 9 exceeds the 4 slots"),
        ([Request("a", [1], 3, True)] * 2, {}, {}, "two requests of a run are called 'a'"),
        ([Request("a", [5, -1], 3, True)], {}, {}, "'a' has a negative token id"),
        ([Request("a", [10**6], 3, True)], {}, {}, "out of vocabulary"),
        ([Request("a", [], 3, True)], {}, {}, "cannot be empty"),
        ([Request("a", [1] * 600, 3, True)], {}, {}, "maximum context length is 512"),
        ([Request("a", [1], 0, True)], {}, {}, "max_tokens must be at least 1"),
        ([Request("a", [1], 3, True)], {}, {"temprature": 1.0}, "temprature"),
        ([Request("a", [1], 3, True)], {}, {"temperature": -1.0}, "temperature"),
        ([Request("a", [1], 3, True)], {}, {"n": 2}, "n is 2"),
        ([Request("a", [1], 3, True)], {}, {"logprobs": 1.5}, "no log-probabilities"),
        ([], {}, {}, "at least one request"),
    ],
)
def test_a_refused_run_is_a_sentence_and_the_engine_lives(
    spec, runtime, requests, policy, sampling, sentence
):
    with opened(spec, runtime) as engine:
        bad = RunCommand(Policy(**{"kind": "fixed", "threshold": 2, **policy}), requests, sampling)
        with pytest.raises(EngineError, match=sentence):
            engine.run(bad, lambda p: None)
        # One bad request among good ones: those queued before it must go again.
        some_bad = msgspec.structs.replace(bad, requests=command().requests[:3] + requests)
        with pytest.raises(EngineError, match=sentence if requests else "the engine refused"):
            engine.run(some_bad, lambda p: None) if requests else engine.run(bad, lambda p: None)
    assert serves(spec, runtime) == engine.facts["pid"]


def spoilt(source: random.Random) -> bytes:
    """Return a frame's content: noise, or a run of which something is wrong or odd."""
    if source.random() < 0.9:
        return random_content(source)
    run = msgspec.to_builtins(command(2, 2))
    request = source.choice(run["requests"])
    odd = [None, -1, 0, 1.5, 10**6, 2**63, "x", [], {}, [[]], True, float("nan")]
    where = source.randrange(5)
    if where == 0:
        request[source.choice(list(request))] = source.choice(odd)
    elif where == 1:
        request["prompt_token_ids"] = [source.choice(odd[1:6])] * source.randrange(1, 400)
    elif where == 2:
        name = source.choice(SAMPLING_OPTIONS)
        run["sampling"][name] = source.choice(odd)
    elif where == 3:
        run["policy"][source.choice(list(run["policy"]))] = source.choice(odd)
    else:
        run["requests"] = run["requests"] * source.randrange(3)
    return msgspec.msgpack.encode(run)


def test_thousands_of_bad_frames_do_not_end_the_engine(spec, runtime):
    pid = serves(spec, runtime)
    with connection_to(spec, runtime) as connection:
        send(connection, THIS_PROCESS)
        receive(connection, FromHost)
        socket_path = DeviceDirectory("cpu", runtime).socket
        answers = fuzz(socket_path, random.Random(8), BAD_FRAMES, spoilt)
        assert min(answers.values()) > 10
    assert serves(spec, runtime) == pid


def test_a_client_killed_in_mid_run_frees_the_device_and_ends_its_run_alone(
    spec, runtime, tmp_path
):
    pid = serves(spec, runtime)
    client = Client(spec, runtime, tmp_path / "a", *LONG)
    client.await_line("tokens")
    client.kill()
    assert serves(spec, runtime) == pid


def test_a_run_over_its_time_is_given_up_and_the_engine_serves_the_next(spec, runtime):
    pid = serves(spec, runtime)
    with opened(spec, runtime, run_timeout_s=0.5) as engine:
        started = time.monotonic()
        with pytest.raises(EngineError, match=r"took longer than 0.5 s; raise engine.run_timeout"):
            engine.run(command(*LONG), lambda p: None)
        assert time.monotonic() - started < 10
    assert serves(spec, runtime) == pid


def test_of_two_clients_one_waits_and_says_for_whom(spec, runtime, tmp_path):
    pid = serves(spec, runtime)
    first = Client(spec, runtime, tmp_path / "first", 12, 200)
    first.await_line("tokens")
    second = Client(spec, runtime, tmp_path / "second")
    line = second.await_line("waiting")
    assert line == (
        f"waiting for the device: process {first.process.pid} in {first.folder} is using it"
    )
    assert second.await_line("engine") == f"engine {pid}"
    assert "done 2400" in first.finish()
    assert "done 30" in second.finish()


def test_a_holder_that_has_gone_is_not_waited_for(spec, runtime):
    pid = serves(spec, runtime)
    holder = DeviceDirectory("cpu", runtime).holder
    said: list[str] = []
    for content in (b"half a no", msgspec.json.encode(Holder(1, 1, "/nowhere"))):
        holder.write_bytes(content)
        with opened(spec, runtime, said) as engine:
            assert engine.facts["pid"] == pid
    assert said == []


def test_a_client_of_an_older_version_is_told_what_to_do(spec, runtime):
    serves(spec, runtime)
    with connection_to(spec, runtime) as connection:
        send(connection, Hello(VERSION - 1))
        answer = receive(connection, FromHost)
    assert isinstance(answer, Failure)
    assert f"the client version {VERSION - 1}; use the same pdswitch for both" in answer.message


def a_full_disk_costs_the_run_alone(spec: EngineSpec, runtime: Path, disk: Path) -> None:
    pid = serves(spec, runtime)
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    before = set(disk.iterdir())
    sentence = "the record of the run could not be written to .*; free some space there"
    with opened(spec, runtime) as engine:
        for _ in range(2):
            with pytest.raises(EngineError, match=sentence):
                engine.run(command(), lambda p: None)
    filler.unlink()
    assert serves(spec, runtime) == pid
    assert set(disk.iterdir()) | {filler} == before


def test_a_full_disk_costs_the_run_and_not_the_engine(spec, runtime, small_disk):
    if small_disk is None:
        pytest.skip("only root can mount a small disk")
    a_full_disk_costs_the_run_alone(spec, runtime, small_disk)


# -- engines that end -----------------------------------------------------------------------------


def test_killed_in_mid_run_it_fails_with_its_log_and_the_next_client_gets_a_new_one(spec, runtime):
    with opened(spec, runtime) as engine:
        pid = engine.facts["pid"]

        def kill(progress) -> None:
            os.kill(pid, signal.SIGKILL)

        with pytest.raises(EngineError, match="the engine died") as caught:
            engine.run(command(*LONG), kill)
        (log,) = (runtime / "logs").iterdir()
        assert f"The end of its log {log}:" in str(caught.value)
        assert log.read_text().splitlines()[-1] in str(caught.value)
    directory = DeviceDirectory("cpu", runtime)
    assert directory.socket.exists()  # stale
    assert read_note(directory.note, EngineNote).pid == pid  # stale
    assert serves(spec, runtime) != pid


def test_an_engine_whose_note_nobody_understands_is_replaced(spec, runtime):
    pid = serves(spec, runtime)
    # As an engine of the first version wrote it.
    directory = DeviceDirectory("cpu", runtime)
    directory.note.write_text(f'{{"pid":{pid},"started":1763897.25,"key":"x","log":"y"}}')
    assert serves(spec, runtime) != pid
    await_gone(pid)


def test_a_used_again_process_id_harms_nobody_and_a_starting_engine_is_taken_over(
    spec, runtime, tmp_path
):
    directory = DeviceDirectory("cpu", runtime)
    note = read_note(directory.note, EngineNote)
    other = msgspec.structs.replace(spec, n_slots=2)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        write_note(directory.note, msgspec.structs.replace(note, pid=stranger.pid))
        # The engine that runs sees that the device is no longer its own.
        await_gone(note.pid)
        client = Client(other, runtime, tmp_path / "a")
        client.await_line("loading")
        client.kill()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    (pid,) = engine_pids(runtime)
    assert serves(other, runtime) == pid
    assert engine_pids(runtime) == [pid]


def test_other_settings_replace_the_engine_and_idle_ones_leave(spec, runtime):
    first = serves(msgspec.structs.replace(spec, n_slots=2), runtime)
    said: list[str] = []
    other = msgspec.structs.replace(spec, n_slots=3)
    with opened(other, runtime, said, idle=1.0) as engine:
        second = engine.facts["pid"]
        assert engine.facts["n_slots"] == 3
    assert "replacing an engine with other settings" in said
    assert group_of(first) == []
    await_gone(second)
    directory = DeviceDirectory("cpu", runtime)
    assert not directory.socket.exists()
    assert not directory.note.exists()


def test_an_engine_that_cannot_start_says_why(spec, runtime, tmp_path):
    missing = msgspec.structs.replace(spec, model=str(tmp_path / "no-such-model"))
    with pytest.raises(EngineError, match="no-such-model"), opened(missing, runtime):
        pytest.fail("an engine without a model must not open")
    assert engine_pids(runtime) == []


@pytest.mark.rare
def test_a_core_of_its_own_survives_full_disks_and_clients_but_not_its_host(
    spec, runtime, small_disk, tmp_path
):
    apart = msgspec.structs.replace(spec, separate_core=True)
    pid = serves(apart, runtime)
    assert len(group_of(pid)) >= 3
    if small_disk:
        a_full_disk_costs_the_run_alone(apart, runtime, small_disk)
    client = Client(apart, runtime, tmp_path / "a", *LONG)
    client.await_line("tokens")
    client.kill()
    assert serves(apart, runtime) == pid
    # Killed, it cannot end its core; the device's memory would stay taken.
    os.kill(pid, signal.SIGKILL)
    await_gone(pid)
