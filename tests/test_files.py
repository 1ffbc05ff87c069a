"""Files are written aside and renamed: a whole one or none, whatever happens in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pdswitch.files import NoRoomError, atomic_path, read_json, write_json, write_parquet
from pdswitch.record import Record

LIMITED = """
import resource, signal, sys
from pathlib import Path
import pandas as pd
from pdswitch.files import NoRoomError, write_json, write_parquet
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
path = Path(sys.argv[1])
try:
    if path.suffix == ".json":
        write_json(path, list(range(100_000)))
    else:
        write_parquet(path, pd.DataFrame({"x": [float(i) ** 0.5 for i in range(100_000)]}))
except NoRoomError as error:
    print(error)
"""

WRITTEN = """
from pdswitch.files import atomic_path
with atomic_path(Path(sys.argv[1])) as aside:
    aside.write_text("theirs")
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from pdswitch.files import atomic_path
with atomic_path(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(code: str, path: Path, root: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": str(root / "workflow")},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["value.json", "table.parquet"])
def test_no_room_is_a_sentence_and_leaves_the_old_file(tmp_path, root, name):
    path = tmp_path / name
    path.write_text("the old content")
    done = run(LIMITED, path, root)
    assert f"{path} could not be written (File too large); free some space" in done.stdout
    assert done.returncode == 0, done.stderr
    assert path.read_text() == "the old content"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["value.json", "table.parquet"])
def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(small_disk, name):
    path = small_disk / name
    path.write_text("the old content")
    many = [float(i) ** 0.5 for i in range(100_000)]
    with pytest.raises(NoRoomError, match=r"No space left on device.; free some space there"):
        write_json(path, many) if name == "value.json" else write_parquet(
            path, pd.DataFrame({"x": many})
        )
    assert path.read_text() == "the old content"
    assert list(small_disk.iterdir()) == [path]


def test_killed_while_writing_leaves_the_old_file(tmp_path, root):
    path = tmp_path / "value.json"
    path.write_text("the old content")
    assert run(KILLED, path, root).returncode == -signal.SIGKILL
    assert path.read_text() == "the old content"


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path, root):
    path = tmp_path / "value[1].json"
    run(KILLED, path, root)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_path(path) as aside:
        aside.write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


def test_a_living_writer_keeps_what_it_has_written_aside(tmp_path, root):
    path = tmp_path / "value.json"
    with atomic_path(path) as aside:
        aside.write_text("ours")
        theirs = run("import sys; from pathlib import Path\n" + WRITTEN, path, root)
        assert theirs.returncode == 0, theirs.stderr
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def fail() -> None:
        with atomic_path(tmp_path / "new/file") as aside:
            aside.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert list((tmp_path / "new").iterdir()) == []


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real_fsync(fd)))
    monkeypatch.setattr(
        Path, "replace", lambda old, new: (order.append("rename"), real_replace(old, new))[1]
    )
    write_json(tmp_path / "value.json", {"a": 1})
    assert order == ["fsync", "rename", "fsync"]
    order.clear()
    write_parquet(tmp_path / "table.parquet", pd.DataFrame({"a": [1]}))
    assert order == ["fsync", "rename", "fsync"]


def test_other_errors_keep_their_own_words(tmp_path):
    def read_what_is_not_there() -> None:
        with atomic_path(tmp_path / "out"):
            (tmp_path / "missing").read_text()

    with pytest.raises(FileNotFoundError, match="missing"):
        read_what_is_not_there()


def test_numbers_json_lacks_become_null(tmp_path):
    write_json(tmp_path / "value.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert read_json(tmp_path / "value.json") == {"a": None, "b": [None, 1.5]}


def test_a_run_s_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def no_room(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    record = Record([], [], [])
    record.write(tmp_path / "whole")
    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(OSError, match="No space"):
        record.write(tmp_path / "half")
    assert list(tmp_path.iterdir()) == [tmp_path / "whole"]
