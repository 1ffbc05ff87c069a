"""What a path in the config means."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pdswitch.paths import local_path, written_folder

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES)
def test_a_folder_that_is_written_is_the_one_of_that_name(name):
    assert Path(written_folder(name)).absolute() == Path.cwd() / name
    # Nothing takes it for a user's home.
    assert not written_folder(name).startswith("~")


def test_a_tilde_and_a_slash_are_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert written_folder("~/results") == str(tmp_path / "results")


def test_a_name_is_no_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("it's a {dir} ~x ü", "[x]", "~x", "a b"):
        assert local_path(name) is None
        (tmp_path / name).mkdir()
        assert local_path(name) == Path(name)
