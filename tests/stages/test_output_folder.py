"""An output folder that cannot be one is refused in a sentence."""

import os

import pytest

from pdswitch.stages.output_folder import refuse_unusable


@pytest.mark.parametrize("name", ["new", "a/b/c", "[x] ~y", "~", "ü", "a'b", "."])
def test_any_name_will_do_for_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refuse_unusable(name)
    refuse_unusable(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "file/far/below", "loop"])
def test_a_file_is_no_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("nowhere")
    with pytest.raises(ValueError, match=rf"^output_dir is '{name}', but .* is no folder; choose"):
        refuse_unusable(name)


def test_braces_are_snakemake_s():
    with pytest.raises(ValueError, match="takes braces for wildcards; choose a name without"):
        refuse_unusable("results/{model}")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_s_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="but you may not write to"):
        refuse_unusable(str(tmp_path / "results"))
