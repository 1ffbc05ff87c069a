"""What is said of an engine's memory is what vLLM itself makes of public models."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest

from pdswitch.analysis.kv_slots import KvGroup, MemoryOptions, kv_budget, safe_slots
from pdswitch.engine.memory import kv_layout, model_bytes
from vllm_layouts import MAX_MODEL_LEN, MEMORY_BYTES, MODELS

BFLOAT16, FLOAT32, FP8 = 2, 4, 1
# Of each case: devices, options of vLLM, bytes of a token on a device, and layers with a state of
# fixed size. Keys and values have a head for every KV head of the device, at least one; latent
# attention has one vector of rank and rotary part for all heads.
CASES = {
    "Llama-3.1-8B": (1, {}, 2 * 32 * 8 * 128 * BFLOAT16, 0),
    "Llama-3.1-8B in float32": (1, {"dtype": "float32"}, 2 * 32 * 8 * 128 * FLOAT32, 0),
    "Llama-3.1-8B with fp8": (1, {"kv_cache_dtype": "fp8"}, 2 * 32 * 8 * 128 * FP8, 0),
    "Qwen3-8B": (2, {}, 2 * 36 * 4 * 128 * BFLOAT16, 0),
    "Qwen3-30B-A3B": (1, {}, 2 * 48 * 4 * 128 * BFLOAT16, 0),
    # Four KV heads over eight devices: each is there twice.
    "Qwen3-30B-A3B on eight": (8, {}, 2 * 48 * 1 * 128 * BFLOAT16, 0),
    "DeepSeek-V2-Lite": (1, {}, 27 * (512 + 64) * BFLOAT16, 0),
    # The latent vector is there on every device.
    "DeepSeek-V2-Lite on four": (4, {}, 27 * (512 + 64) * BFLOAT16, 0),
    # Four of 32 layers have attention.
    "Jamba-1.5-Mini": (1, {}, 2 * 4 * 8 * 128 * BFLOAT16, 28),
    # Twelve of 48 layers have attention.
    "Qwen3-Next-80B-A3B": (1, {}, 2 * 12 * 2 * 256 * BFLOAT16, 36),
    # 26 layers in seven groups of four.
    "gemma-3-1b": (1, {}, 2 * 28 * 1 * 256 * BFLOAT16, 0),
    "gpt-oss-20b": (1, {}, 2 * 24 * 8 * 64 * BFLOAT16, 0),
    # Attention and state in every layer.
    "Falcon-H1-1.5B": (1, {}, 2 * 24 * 2 * 128 * BFLOAT16, 24),
    "mamba2-2.7b": (1, {}, 0, 64),
}
OPTIONS = MemoryOptions(
    gpu_memory_gb=None,
    gpu_memory_utilization=1.0,
    tensor_parallel_size=1,
    model_memory_gb=None,
    kv_cache_bytes=None,
)


@pytest.fixture(scope="module")
def laid_out(root, tmp_path_factory) -> dict[str, dict]:
    """What vLLM makes of every case, asked in a process of its own."""
    cases = [[name.split(" ")[0], *case[:2]] for name, case in CASES.items()]
    output = tmp_path_factory.mktemp("layouts") / "layouts.json"
    script = str(root / "tests/support/vllm_layouts.py")
    environment = os.environ | {"PYTHONPATH": str(root / "workflow")}
    subprocess.run(
        [sys.executable, script, json.dumps(cases), str(output)], check=True, env=environment
    )
    return dict(zip(CASES, json.loads(output.read_text()), strict=True))


def test_the_cases_are_of_eight_architectures_and_more():
    assert {name.split(" ")[0] for name in CASES} == {*MODELS}
    assert len({fields["model_type"] for fields in MODELS.values()}) >= 8


@pytest.mark.parametrize(
    ("sizes_and_strides", "block_bytes"),
    [
        ([(4000, 0), (4000, 0)], 800),  # a tensor for each layer: vLLM 0.26
        ([(8000, 400), (8000, 400)], 800),  # layers of several groups in one: vLLM 0.30
        ([], 0),
    ],
)
def test_tensors_that_share_their_bytes_count_once(sizes_and_strides, block_bytes):
    tensors = [
        SimpleNamespace(size=size, block_stride=stride) for size, stride in sizes_and_strides
    ]
    cache = SimpleNamespace(num_blocks=10, kv_cache_tensors=tensors, kv_cache_groups=[])
    assert kv_layout(None, cache) == {"kv_block_bytes": block_bytes, "kv_groups": []}


def test_what_a_gpu_needs_besides_is_what_vllm_leaves_free_of_kv_cache():
    worker = SimpleNamespace(model_runner=SimpleNamespace())
    assert model_bytes(worker) == {"weight_bytes": None, "other_bytes": None}
    worker.model_runner.model_memory_usage = 4_000
    assert model_bytes(worker) == {"weight_bytes": 4_000, "other_bytes": None}
    worker.requested_memory, worker.available_kv_cache_memory_bytes = 90_000, 80_500
    assert model_bytes(worker) == {"weight_bytes": 4_000, "other_bytes": 5_500}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
class TestOfAPublicModel:
    def test_bytes_of_a_token_are_those_on_a_device(self, laid_out, name):
        _, _, bytes_per_token, state_layers = CASES[name]
        budget = kv_budget(OPTIONS, laid_out[name])
        # vLLM pads a block by up to a few tokens, so that state and KV cache have blocks alike.
        described = budget.described()["bytes_per_token"]
        assert described == pytest.approx(bytes_per_token, rel=0.005)
        state = [group for group in budget.groups if not group.grows]
        assert sum(group.layers for group in state) == state_layers

    def test_a_device_has_the_blocks_that_vllm_finds_in_its_memory(self, laid_out, name):
        found = laid_out[name]
        given = (MEMORY_BYTES + found["memory"]["weight_bytes"]) / 1e9
        asked = msgspec.structs.replace(OPTIONS, gpu_memory_gb=given)
        assert kv_budget(asked, found).blocks == found["num_kv_blocks"]

    def test_requests_of_the_longest_text_take_what_vllm_says(self, laid_out, name):
        budget = kv_budget(OPTIONS, laid_out[name])
        requests = budget.blocks / sum(group.most_blocks for group in budget.groups)
        assert int(requests * MAX_MODEL_LEN) == laid_out[name]["vllm_tokens"]

    def test_slots_hold_their_texts_in_the_blocks_there_are(self, laid_out, name):
        budget = kv_budget(OPTIONS, laid_out[name])
        theory = {
            "timing": {
                "prefill": {"linear": {"alpha_p": 0.012}},
                "decode": {"linear": {"alpha_d": 0.0065}},
            }
        }
        lengths = {"mean_prompt_tokens": 1000.0, "std_prompt_tokens": 0.0}
        termination = lengths | {"termination_probability": 1 / 100}
        if not any(group.grows for group in budget.groups):
            with pytest.raises(ValueError, match=r"116 slots fit: set batch_size"):
                safe_slots(budget, theory, termination, 0.05, 10**6)
            return
        slots = safe_slots(budget, theory, termination, 0.05, 10**6)["n_slots"]

        def need(tokens: int) -> int:
            return sum(blocks(group, tokens) for group in budget.groups)

        # All prompts fit; all texts of twice the mean answer would not.
        assert slots * need(1000) < budget.blocks
        assert slots * need(1200) * 1.3 > budget.blocks


def blocks(group: KvGroup, tokens: int) -> int:
    """Blocks of a group that vLLM gives to a text."""
    return min(-(-tokens // group.block_size), group.most_blocks) if group.grows else 1
