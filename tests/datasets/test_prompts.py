"""From requests to `prompts.parquet` and its manifest: limits, digest, statistics, failures."""

import hashlib
import itertools
import json
import runpy
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, processors

from pdswitch.datasets import prompts as module
from pdswitch.datasets.encoding import Encoder
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.prompts import SCHEMA, limits_of, write_prompts
from pdswitch.datasets.sample import DatasetError, Lengths, Sample, Skipped
from pdswitch.datasets.summary import Digest, length_statistics
from tokenizer_fixture import STRICT_TEMPLATE, make_tokenizer

WORDS = ["What", "is", "the", "capital", "of", "Portugal?", "zwei", "🌞", "42\n"]


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer())


def limits(num_requests, longest=10_000, *, reuse=False, **engine):
    options = dataset_options(
        "demo",
        {"num_requests": num_requests, "max_input_tokens": longest, "reuse_requests": reuse},
    )
    return limits_of(options, engine.get("max_model_len"), engine.get("max_output_tokens", 10))


def outcomes(wanted):
    """Return texts of many lengths, some without an answer, and some records that are none."""
    rng = np.random.default_rng(0)
    for number in range(wanted):
        if number % 9 == 4:
            yield Skipped("bad")
        prompt = " ".join(rng.choice(WORDS, rng.integers(1, 30)))
        yield Sample(f"s{number}", prompt, None if number % 3 else "42 " * (number % 7 + 1))


def test_the_columns_are_those_of_the_contract(tmp_path, encoder):
    write_prompts(tmp_path / "p.parquet", outcomes(50), encoder, limits(40))
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert all(field.metadata[b"meaning"] for field in table.schema)
    rows = table.to_pylist()
    assert [row["request_id"] for row in rows] == [f"r{number:06d}" for number in range(40)]
    assert [row["source_id"] for row in rows] == [f"s{number}" for number in range(40)]
    tokenizer = make_tokenizer()
    for row in rows:
        ids = tokenizer.encode(row["prompt"], add_special_tokens=False)
        assert row["prompt_token_ids"] == ids
        assert row["prompt_tokens"] == len(ids)
    samples = [o for o in outcomes(50) if isinstance(o, Sample)]
    for row, sample in zip(rows, samples, strict=False):
        answer = sample.reference_output
        expected = None if answer is None else len(tokenizer.encode(answer)) - 1
        assert row["reference_output_tokens"] == expected
        assert sample.prompt in row["prompt"]


def test_the_same_input_gives_the_same_bytes_and_batches_do_not_matter(
    tmp_path, encoder, monkeypatch
):
    first = write_prompts(tmp_path / "a.parquet", outcomes(200), encoder, limits(170))
    again = write_prompts(tmp_path / "b.parquet", outcomes(200), encoder, limits(170))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    monkeypatch.setattr(module, "BATCH", 7)
    small = write_prompts(tmp_path / "c.parquet", outcomes(200), encoder, limits(170))
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 50)
    tiny = write_prompts(tmp_path / "d.parquet", outcomes(200), encoder, limits(170))
    assert first == again == small == tiny
    assert pq.read_table(tmp_path / "a.parquet") == pq.read_table(tmp_path / "d.parquet")


def test_more_requests_begin_with_the_same_ones(tmp_path, encoder):
    for count in (30, 60):
        write_prompts(tmp_path / f"{count}.parquet", outcomes(80), encoder, limits(count))
    few, many = (pq.read_table(tmp_path / f"{count}.parquet") for count in (30, 60))
    assert many.slice(0, 30) == few


def test_no_more_is_read_than_needed(tmp_path, encoder):
    remaining = outcomes(1000)
    found = write_prompts(tmp_path / "p.parquet", remaining, encoder, limits(20))
    assert next(o for o in remaining if isinstance(o, Sample)).source_id == "s20"
    assert found["skipped"] == {"bad": 2}


@pytest.mark.parametrize(
    ("max_input_tokens", "max_model_len", "longest", "reason"),
    [
        (90, None, 90, "longer than max_input_tokens"),
        (90, 100, 90, "longer than max_input_tokens"),
        (90, 96, 86, "no room for the answer in the model's context"),
    ],
)
def test_the_limit_that_binds_is_named(
    tmp_path, encoder, max_input_tokens, max_model_len, longest, reason
):
    bound = limits(60, max_input_tokens, max_model_len=max_model_len)
    found = write_prompts(tmp_path / "p.parquet", outcomes(400), encoder, bound)
    lengths = pq.read_table(tmp_path / "p.parquet")["prompt_tokens"].to_numpy()
    assert lengths.max() <= longest
    assert found["skipped"][reason] > 5
    assert set(found["skipped"]) == {reason, "bad"}


def test_a_text_of_megabytes_is_skipped_like_any_long_one(tmp_path, encoder):
    texts = [Sample("a", "word " * 1_000_000), Sample("b", "short"), Sample("c", "x" * 5_000_000)]
    found = write_prompts(tmp_path / "p.parquet", [*texts, Sample("d", "too")], encoder, limits(2))
    assert found["skipped"] == {"longer than max_input_tokens": 2}
    assert found["rows"] == 2


def test_an_answer_as_long_as_the_context_is_refused():
    with pytest.raises(DatasetError, match=r"max_output_tokens \(64\) leaves no room"):
        limits(1, max_model_len=64, max_output_tokens=64)


def test_too_few_requests_are_used_again_in_order_if_that_is_wanted(tmp_path, encoder):
    found = write_prompts(tmp_path / "p.parquet", outcomes(20), encoder, limits(50, reuse=True))
    assert (found["rows"], found["reused"]) == (50, 30)
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema.equals(SCHEMA, check_metadata=True)
    rows = table.to_pylist()
    assert [row["request_id"] for row in rows] == [f"r{number:06d}" for number in range(50)]
    assert [row["source_id"] for row in rows] == [f"s{number % 20}" for number in range(50)]
    assert [row["prompt_token_ids"] for row in rows[20:40]] == [
        row["prompt_token_ids"] for row in rows[:20]
    ]
    digest = Digest()
    digest.update(table)
    assert found["sha256"] == digest.hexdigest()
    enough = write_prompts(tmp_path / "e.parquet", outcomes(20), encoder, limits(20, reuse=True))
    assert enough["reused"] == 0
    with pytest.raises(DatasetError, match="there are 0 usable requests"):
        write_prompts(
            tmp_path / "n.parquet", iter([Skipped("bad")]), encoder, limits(5, reuse=True)
        )


def test_too_few_requests_say_how_many_and_why_and_leave_nothing(tmp_path, encoder):
    with pytest.raises(DatasetError) as caught:
        write_prompts(tmp_path / "p.parquet", outcomes(20), encoder, limits(25))
    assert str(caught.value) == (
        "there are 20 usable requests, but 25 are wanted (num_requests and the estimation "
        "samples); skipped: bad (2); lower num_requests by 5, or set reuse_requests: true to use "
        "requests more than once"
    )
    assert list(tmp_path.iterdir()) == []


def test_too_few_requests_name_the_limit_only_if_it_left_some_out(tmp_path, encoder):
    with pytest.raises(DatasetError, match=r", or raise the limit .* \(12 tokens\)$"):
        write_prompts(tmp_path / "p.parquet", outcomes(20), encoder, limits(25, 12))


CHAT = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("template", "prompt", "reason", "advice"),
    [
        (STRICT_TEMPLATE, CHAT, "chat that the model's chat template refuses", "such chats"),
        (STRICT_TEMPLATE, "Why?", "text that the model's chat template refuses", "plain text"),
        (None, CHAT, "chat without a chat template", "use a model that has a chat template"),
    ],
)
def test_prompts_that_are_all_refused_say_why_and_what_helps(
    tmp_path, template, prompt, reason, advice
):
    samples = [Sample(str(number), prompt) for number in range(3)]
    with pytest.raises(DatasetError) as caught:
        write_prompts(tmp_path / "p", samples, Encoder(make_tokenizer(template)), limits(3))
    sentence = str(caught.value)
    assert f"skipped: {reason} (3" in sentence
    assert sentence.endswith(advice)
    assert ("first: only the system may speak" in sentence) == (template is not None)
    assert ("apply_chat_template: false" in sentence) == (prompt == "Why?")


def test_prompts_that_are_all_refused_do_not_read_a_source_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_REFUSED", 2000)
    endless = (Sample(str(number), CHAT) for number in itertools.count())
    with pytest.raises(DatasetError, match="there are 0 usable requests"):
        write_prompts(tmp_path / "p", endless, Encoder(make_tokenizer(None)), limits(3))


def test_a_prompt_that_has_no_tokens_is_skipped(tmp_path):
    tokenizer = make_tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    samples = [Sample("0", "\u200b"), Sample("1", "Why?")]
    found = write_prompts(tmp_path / "p", samples, Encoder(tokenizer), limits(1))
    assert found["skipped"] == {"prompt of no tokens": 1}


def test_a_source_that_breaks_off_leaves_nothing(tmp_path, encoder):
    def breaking():
        yield from outcomes(2000)
        raise DatasetError("the file is cut short; fetch it again")

    with pytest.raises(DatasetError, match="cut short"):
        write_prompts(tmp_path / "p.parquet", breaking(), encoder, limits(5000))
    assert list(tmp_path.iterdir()) == []


def test_lengths_become_random_ids_of_that_length(tmp_path, encoder):
    requests = [Lengths(f"t{i}", 30 - i, 3 * i + 1, i) for i in range(12)]
    found = write_prompts(tmp_path / "p.parquet", requests, encoder, limits(10, 28), seed=4)
    assert found["skipped"] == {"longer than max_input_tokens": 2}
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["prompt_tokens"] for row in rows] == list(range(28, 18, -1))
    assert [len(row["prompt_token_ids"]) for row in rows] == list(range(28, 18, -1))
    assert [row["reference_output_tokens"] for row in rows] == [3 * i + 1 for i in range(2, 12)]
    assert {row["prompt"] for row in rows} == {""}
    assert len({tuple(row["prompt_token_ids"][:5]) for row in rows}) == 10
    other = write_prompts(tmp_path / "q.parquet", requests, encoder, limits(10, 28), seed=5)
    assert other["sha256"] != found["sha256"]


def test_progress_counts_every_request(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 16)
    steps = []
    write_prompts(tmp_path / "p.parquet", outcomes(100), encoder, limits(90), progress=steps.append)
    assert sum(steps) == 90
    assert len(steps) > 3


ROWS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
        st.lists(st.integers(0, 1000), max_size=5),
        st.none() | st.integers(0, 100),
    ),
    min_size=1,
    max_size=6,
)


def table_of(rows):
    columns = {
        "request_id": [str(i) for i in range(len(rows))],
        "prompt": [prompt for prompt, _, _ in rows],
        "prompt_token_ids": [ids for _, ids, _ in rows],
        "prompt_tokens": [len(ids) for _, ids, _ in rows],
        "reference_output_tokens": [tokens for _, _, tokens in rows],
        "source_id": [str(i) for i in range(len(rows))],
    }
    return pa.table(columns, schema=SCHEMA)


def digest_of(*tables):
    digest = Digest()
    for table in tables:
        digest.update(table)
    return digest.hexdigest()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=ROWS, other=ROWS, cut=st.integers(0, 6))
def test_the_digest_depends_on_the_content_alone(rows, other, cut):
    whole = digest_of(table_of(rows))
    assert digest_of(table_of(rows).slice(0, cut), table_of(rows).slice(cut)) == whole
    assert (digest_of(table_of(other)) == whole) == (rows == other)


def test_statistics_by_hand():
    found = length_statistics([2, 4, 4, 6], [1, None, 3, None])
    assert found["prompt_tokens"] == {
        "total": 16,
        "mean": 4.0,
        "std": pytest.approx(np.sqrt(2)),
        "cv": pytest.approx(np.sqrt(2) / 4),
        "min": 2,
        "median": 4.0,
        "p95": pytest.approx(5.7),
        "max": 6,
    }
    outputs = found["reference_output_tokens"]
    assert (outputs["known"], outputs["unknown"], outputs["mean"]) == (2, 2, 2.0)
    # Against 1-(1/2)^l: at 2 the lengths reach 1/2, the law 3/4; at 3 they reach 1, it 7/8.
    assert outputs["geometric_ks_distance"] == pytest.approx(0.25)
    assert length_statistics([1], [None])["reference_output_tokens"] == {"known": 0, "unknown": 1}


def test_geometric_lengths_are_recognised():
    rng = np.random.default_rng(0)
    geometric = length_statistics([1], rng.geometric(0.02, 4000).tolist())
    fixed = length_statistics([1], [50] * 4000)
    assert geometric["reference_output_tokens"]["geometric_ks_distance"] < 0.03
    assert fixed["reference_output_tokens"]["geometric_ks_distance"] > 0.5


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return folder


def run_script(root, monkeypatch, folder, tokenizer, name, options, *further):
    """Run the stage's command line in this process."""
    arguments = [
        *("--dataset", name, "--options", json.dumps(options)),
        *("--tokenizer", str(tokenizer), "--max-output-tokens", "16"),
        *("--output", str(folder / "prompts.parquet"), "--manifest", str(folder / "prompts.json")),
    ]
    script = str(root / "workflow/scripts/prompts.py")
    monkeypatch.setattr(sys, "argv", [script, *arguments, *further])
    runpy.run_path(script, run_name="__main__")


def test_the_script_writes_both_files_and_the_same_bytes_again(
    root, monkeypatch, tmp_path, tokenizer_folder
):
    options = {"kind": "demo", "num_requests": 300, "shuffle": True, "seed": 3}
    for run in ("first", "second"):
        run_script(root, monkeypatch, tmp_path / run, tokenizer_folder, "my demo", options)
    manifest = json.loads((tmp_path / "first/prompts.json").read_text())
    for file in ("prompts.json", "prompts.parquet"):
        first, second = ((tmp_path / run / file).read_bytes() for run in ("first", "second"))
        assert first == second
    assert (manifest["dataset"], manifest["options"]["kind"]) == ("my demo", "demo")
    assert manifest["rows"] == 300
    assert manifest["chat_template"]
    assert manifest["skipped"] == {}
    assert manifest["source"] is manifest["revision"] is None
    table = pq.read_table(tmp_path / "first/prompts.parquet")
    assert manifest["prompt_tokens"]["total"] == table["prompt_tokens"].to_numpy().sum()
    assert manifest["sha256"] == digest_of(table)
    assert len(manifest["tokenizer_sha256"]) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    ("options", "further", "sentence"),
    [
        ({"num_requests": 9999}, [], "usable requests, but 9999 are wanted"),
        ({"sauce": 1}, [], "datasets.demo.sauce is not a known key"),
        ({"kind": "nothing"}, [], "dataset kind nothing is not known; use one of"),
        ({"kind": "custom"}, [], "custom_prompts is missing"),
        ({"kind": "custom", "custom_prompts": "/no.json"}, [], "there is no file or folder /no"),
        ([], [], "--options is no JSON object"),
        ({}, ["--max-model-len", "16"], r"max_output_tokens (16) leaves no room for a prompt"),
        ({}, ["--tokenizer", "/nowhere"], "the tokenizer of /nowhere cannot be read"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_no_file(
    root, monkeypatch, tmp_path, tokenizer_folder, options, further, sentence
):
    with pytest.raises(SystemExit) as caught:
        run_script(root, monkeypatch, tmp_path, tokenizer_folder, "demo", options, *further)
    # A text given to sys.exit goes to stderr, and the status is 1.
    assert sentence in caught.value.code
    assert "\n" not in caught.value.code
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_template_is_named_once(root, monkeypatch, tmp_path, capsys):
    make_tokenizer(None).save_pretrained(tmp_path / "plain")
    run_script(root, monkeypatch, tmp_path, tmp_path / "plain", "demo", {"num_requests": 300})
    assert capsys.readouterr().err.count("has no chat template; the raw text is used") == 1
    first = pq.read_table(tmp_path / "prompts.parquet").to_pylist()[0]
    assert not first["prompt"].startswith("<s>")
    assert first["prompt_token_ids"].count(make_tokenizer().bos_token_id) == 1


def test_model_json_gives_tokenizer_and_context(root, monkeypatch, tmp_path, tokenizer_folder):
    model = {
        "path": str(tokenizer_folder),
        "revision": None,
        "context_length": 100,
        "vocabulary_size": 420,
    }
    (tmp_path / "model.json").write_text(json.dumps(model))
    script = str(root / "workflow/scripts/prompts.py")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *(script, "--dataset", "demo", "--options", '{"num_requests": 20}'),
            *("--model", str(tmp_path / "model.json"), "--max-output-tokens", "16"),
            *("--output", str(tmp_path / "p.parquet"), "--manifest", str(tmp_path / "p.json")),
        ],
    )
    runpy.run_path(script, run_name="__main__")
    manifest = json.loads((tmp_path / "p.json").read_text())
    assert manifest["max_model_len"] == 100
    assert manifest["prompt_tokens"]["max"] <= 84
    assert manifest["skipped"]["no room for the answer in the model's context"] > 0


def test_the_command_line_explains_itself_and_fails_with_status_1(root, tmp_path):
    script = root / "workflow/scripts/prompts.py"
    environment = {"PYTHONPATH": str(root / "workflow"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(script)]
    shown = subprocess.run(
        [*command, "--help"], env=environment, capture_output=True, text=True, check=True
    )
    assert "--max-output-tokens" in shown.stdout
    failed = subprocess.run(
        [
            *(*command, "--dataset", "demo", "--options", "{num_requests: 3}"),
            *("--tokenizer", "x", "--max-output-tokens", "1"),
            *("--output", str(tmp_path / "p"), "--manifest", str(tmp_path / "m")),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith("error: dataset demo: --options is not JSON")
    assert failed.stderr.count("\n") == 1
