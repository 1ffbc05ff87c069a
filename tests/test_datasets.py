"""From a source to prompts.parquet: both forms of alpaca, the shipped prompts, bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pdswitch.datasets.demo import samples as demo_samples
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.prompts import build_prompts, samples_of
from pdswitch.datasets.sample import DatasetError, Sample, Skipped
from tiny_model import tiny_tokenizer

RECORDS = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"},
    {"instruction": "Say nothing.", "input": "", "output": ""},
]
TEXTS = [
    {
        "text": "Below is an instruction.\n\n### Instruction:\nName a colour.\n\n"
        "### Response:\nBlue."
    },
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def build(samples, tokenizer, **options):
    wanted = {"num_requests": 2} | options
    return build_prompts(samples, tokenizer, dataset_options("demo", wanted), 2000, 100)


def alpaca(tmp_path: Path, content) -> list[Sample | Skipped]:
    path = tmp_path / "alpaca.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return list(samples_of(dataset_options("alpaca", {"source": str(path)})))


def test_the_shipped_prompts_are_many_and_of_all_lengths():
    prompts = [sample.prompt for sample in demo_samples(dataset_options("demo", {}))]
    words = sorted(len(prompt.split()) for prompt in prompts)
    assert len(prompts) >= 300
    assert len(set(prompts)) == len(prompts)
    assert words[0] <= 5
    assert words[-1] >= 100


def test_alpaca_in_its_original_form(tmp_path):
    first, second, third = alpaca(tmp_path, RECORDS)
    assert first == Sample("alpaca-0", "Name a colour.", "Blue.")
    assert second.prompt == "Translate.\n\nGuten Tag"
    assert third.reference_output == ""


def test_alpaca_in_the_hubs_form(tmp_path):
    (sample,) = alpaca(tmp_path, TEXTS)
    assert sample.prompt.endswith("Name a colour.")
    assert sample.reference_output == "Blue."


def test_one_bad_record_is_skipped_and_counted(tmp_path, tokenizer):
    bad = [*RECORDS, {"instruction": None}, {"instruction": 5}, {"text": "  "}]
    found = alpaca(tmp_path, bad)
    assert [type(item) for item in found[3:]] == [Skipped] * 3
    _, manifest = build(found, tokenizer, num_requests=3)
    assert manifest["skipped"] == {"empty": 2, "not text": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"instruction": "cut', "not valid JSON"),
        ("[]", "holds no list of records"),
        ('[{"question": "?"}]', "neither an `instruction` nor a `text` column"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(DatasetError, match=sentence):
        alpaca(tmp_path, content)


def test_a_binary_file_is_one_sentence(tmp_path):
    path = tmp_path / "alpaca.json"
    path.write_bytes(b"\x80\x81\x82")
    with pytest.raises(DatasetError, match="not UTF-8"):
        list(samples_of(dataset_options("alpaca", {"source": str(path)})))


def test_prompts_carry_the_chat_template_and_their_tokens(tokenizer):
    samples = [Sample("a", "Hi", "Hello"), Sample("b", "Bye")]
    table, manifest = build(samples, tokenizer)
    rows = table.to_pylist()
    assert rows[0]["prompt"] == "<|user|>Hi<|end|><|assistant|>"
    assert tokenizer.decode(rows[0]["prompt_token_ids"]) == rows[0]["prompt"]
    assert rows[0]["prompt_tokens"] == len(rows[0]["prompt_token_ids"])
    assert rows[0]["reference_output_tokens"] == len("Hello")
    assert rows[1]["reference_output_tokens"] is None
    assert manifest["rows"] == 2
    assert manifest["chat_template"]


def test_long_prompts_are_skipped_for_two_reasons(tokenizer):
    samples = [Sample("a", "x" * 1950), Sample("b", "y" * 400), *[Sample(c, "ok") for c in "cd"]]
    table, manifest = build(samples, tokenizer)
    assert [row["source_id"] for row in table.to_pylist()] == ["b", "c"]
    assert manifest["skipped"] == {"no room for the answer in the context": 1}
    table, manifest = build(samples, tokenizer, max_input_tokens=100)
    assert [row["source_id"] for row in table.to_pylist()] == ["c", "d"]
    assert manifest["skipped"] == {"longer than max_input_tokens": 2}


def test_too_few_samples_is_a_sentence_with_the_numbers(tokenizer):
    with pytest.raises(DatasetError, match="has 1 usable samples, but 5 are wanted"):
        build([Sample("a", "Hi")], tokenizer, num_requests=5)


def test_the_digest_is_of_the_content(tokenizer):
    samples = [Sample("a", "Hi"), Sample("b", "Bye")]
    first, again = (build(samples, tokenizer)[1] for _ in range(2))
    other = build(samples[::-1], tokenizer)[1]
    assert first == again
    assert first["sha256"] != other["sha256"]


def test_a_shuffle_depends_on_its_seed_alone():
    def order(seed):
        options = dataset_options("demo", {"shuffle": True, "seed": seed})
        return [sample.source_id for sample in samples_of(options)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_the_command_line_end_to_end(root, tmp_path, tiny_model, command_environment):
    def run(script, *arguments, expect=0):
        command = [sys.executable, str(root / "workflow/scripts" / script), *map(str, arguments)]
        done = subprocess.run(command, env=command_environment, capture_output=True, text=True)
        assert done.returncode == expect, done.stderr
        return done.stderr

    model = tmp_path / "model.json"
    run("model.py", "--model", tiny_model, "--checkpoint", tmp_path / "c", "--output", model)
    outputs = ["--output", tmp_path / "prompts.parquet", "--manifest", tmp_path / "prompts.json"]
    common = ["--dataset", "demo", "--model", model, "--max-output-tokens", 20, *outputs]
    run("prompts.py", "--options", '{"num_requests": 50}', *common)
    assert len(pd.read_parquet(tmp_path / "prompts.parquet")) == 50
    schema = pq.read_schema(tmp_path / "prompts.parquet")
    assert schema.field("prompt_tokens").metadata[b"meaning"] == b"their number"
    (tmp_path / "prompts.parquet").unlink()
    said = run("prompts.py", "--options", '{"num_requests": 5000}', *common, expect=1)
    assert "error: demo has" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not (tmp_path / "prompts.parquet").exists()


def test_the_real_alpaca_sample_if_it_is_there(root, tokenizer):
    path = root.parent / "shared/data/alpaca/alpaca_data_1k.json"
    if not path.exists():
        pytest.skip("no sample of the real data set on this machine")
    found = list(samples_of(dataset_options("alpaca", {"source": str(path)})))
    assert len(found) == 1000
    table, _ = build(found, tokenizer, num_requests=900)
    assert table.num_rows == 900
