"""Files of a model that were not fetched, are empty or cut short are found at the model stage."""

import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from pdswitch.checkpoint import refuse_broken

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def refused(folder, match, load_format="auto"):
    with pytest.raises(ValueError, match=match) as caught:
        refuse_broken("mine", folder, load_format)
    assert str(caught.value).startswith("model mine: ")
    assert "\n" not in str(caught.value)


def test_a_whole_model_is_taken(folder):
    for load_format in ("auto", "safetensors", "dummy"):
        refuse_broken("mine", folder, load_format)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_names_the_file_and_the_command(folder, name):
    (folder / name).write_text(POINTER)
    refused(folder, rf"{name} is a pointer of Git LFS, not the file itself; run `git lfs pull`")


def test_the_first_of_many_shards_that_is_a_pointer_is_named(folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_text(POINTER)
    refused(folder, "model-00002-of-00002.safetensors is a pointer")


def test_what_is_not_loaded_may_be_a_pointer(folder):
    for name in ("figure.png", "pytorch_model.bin", "model.onnx"):
        (folder / name).write_text(POINTER)
    refuse_broken("mine", folder, "auto")
    (folder / "model.safetensors").write_text(POINTER)
    refuse_broken("mine", folder, "dummy")


def test_weights_that_are_empty_or_cut_short_are_a_sentence(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"")
    refused(folder, "model.safetensors is empty; download the model again")
    for size in (5, 100, len(content) // 2, len(content) - 1):
        weights.write_bytes(content[:size])
        refused(folder, r"model.safetensors is cut short or no safetensors file \(.+\); download")
    weights.write_bytes(content + b"x")
    refused(folder, "cut short or no safetensors file")
    weights.write_text("<html>404 Not Found</html>" * 100)
    refused(folder, "cut short or no safetensors file")


def test_torch_s_own_format_is_looked_at_too(folder):
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("data.pkl", b"x" * 5000)
    refuse_broken("mine", folder, "auto")
    refused(folder, r"holds no weights \(\*.safetensors\)", "safetensors")
    weights.write_bytes(weights.read_bytes()[:3000])
    refused(folder, "pytorch_model.bin is cut short; download the model again")


def test_missing_weights_are_a_sentence(folder):
    weights = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    shard = weights.rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": shard.name, "b": "model-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": names}))
    refused(folder, "model-00002-of-00002.safetensors is missing, though model.safetensors.index")
    index.write_text('{"weight_map": {"a"')
    refused(folder, "index.json is no index of weights")
    index.unlink()
    shard.unlink()
    refused(folder, "holds no weights .* set engine.load_format: dummy")
    refuse_broken("mine", folder, "dummy")


def test_a_link_to_nothing_is_a_sentence(folder):
    weights = folder / "model.safetensors"
    weights.unlink()
    weights.symlink_to(folder / "gone")
    refused(folder, "model.safetensors is a link to a file that is not there")


def test_the_stage_says_it_in_one_line(root, folder, tmp_path):
    (folder / "model.safetensors").write_text(POINTER)
    command = [sys.executable, str(root / "workflow/scripts/model.py"), "--model", "mine"]
    output = tmp_path / "model.json"
    run = subprocess.run(
        [*command, "--source", str(folder), "--output", str(output)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root / "workflow"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"error: model mine: {folder}/model.safetensors is a pointer of Git LFS")
    assert not output.exists()
