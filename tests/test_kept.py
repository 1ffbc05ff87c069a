"""Runs of a cluster job that was cut off are put back, unless anything they depend on changed."""

import shutil
import sys

import pytest

from pdswitch.kept import VARIABLE, KeptRun, forget_finished, kept_run, run_key
from pdswitch.measurement import RUN_FILES


@pytest.fixture
def run(tmp_path):
    """The files of a finished run."""
    folder = tmp_path / "results/rep=1"
    folder.mkdir(parents=True)
    for name in RUN_FILES:
        (folder / name).write_text(f"content of {name}")
    return folder


def test_a_deleted_run_comes_back_as_it_was(run, tmp_path):
    kept = KeptRun(tmp_path / "kept", "key")
    kept.keep(run)
    before = {name: (run / name).stat().st_mtime_ns for name in RUN_FILES}
    for name in RUN_FILES:
        (run / name).unlink()
    assert kept.restore(run)
    assert {name: (run / name).stat().st_mtime_ns for name in RUN_FILES} == before
    assert (run / "run.json").read_text() == "content of run.json"


def test_what_is_not_among_the_results_yet_stays_kept(run, tmp_path):
    root, results = tmp_path / "results/.kept", tmp_path / "results"
    finished = results / "m/d/N=4/throughput/threshold=1/rep=1"
    for folder in (run, finished):
        folder.mkdir(parents=True, exist_ok=True)
        for name in RUN_FILES:
            (folder / name).write_text(f"{name} of {folder.name} in {folder.parent.name}")
    KeptRun(root, "finished").keep(finished)
    KeptRun(root, "waiting").keep(run)
    forget_finished(root, results)
    assert [entry.name for entry in root.iterdir()] == ["waiting"]
    shutil.rmtree(root / "waiting")
    forget_finished(root, results)
    assert not root.exists()
    forget_finished(root, results)


def test_what_is_put_back_replaces_what_an_older_code_measured(run, tmp_path):
    kept = KeptRun(tmp_path / "kept", "key")
    kept.keep(run)
    (run / "run.json").unlink()
    (run / "run.json").write_text("older")
    assert kept.restore(run)
    assert (run / "run.json").read_text() == "content of run.json"


def test_another_key_has_nothing_to_put_back(run, tmp_path):
    KeptRun(tmp_path / "kept", "key").keep(run)
    assert not KeptRun(tmp_path / "kept", "other").restore(run)


def test_half_a_run_is_not_kept(run, tmp_path):
    (run / "run.json").unlink()
    kept = KeptRun(tmp_path / "kept", "key")
    with pytest.raises(FileNotFoundError):
        kept.keep(run)
    assert not kept.restore(run)


def test_it_is_copied_where_the_file_system_knows_no_links(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    kept = KeptRun(tmp_path / "kept", "key")
    kept.keep(run)
    (run / "run.json").unlink()
    assert kept.restore(run)
    assert (run / "run.json").read_text() == "content of run.json"


def test_nothing_is_kept_unless_the_workflow_says_where(run, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    kept = kept_run([run / "run.json"])
    kept.keep(run)
    assert not kept.restore(run)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    kept_run([run / "run.json"]).keep(run)
    assert kept_run([run / "run.json"]).restore(run)


def test_the_key_depends_on_command_inputs_and_code(tmp_path, monkeypatch):
    data = tmp_path / "prompts.parquet"
    data.write_text("one")
    module = tmp_path / "extra.py"
    module.write_text("x = 1")
    fake = type(sys)("pdswitch.extra")
    fake.__file__ = str(module)
    monkeypatch.setitem(sys.modules, "pdswitch.extra", fake)
    keys = [run_key(["--rep", "1"], [data])]
    assert run_key(["--rep", "1"], [data]) == keys[0]
    keys.append(run_key(["--rep", "2"], [data]))
    data.write_text("two")
    keys.append(run_key(["--rep", "1"], [data]))
    module.write_text("x = 2")
    keys.append(run_key(["--rep", "1"], [data]))
    assert len(set(keys)) == len(keys)
