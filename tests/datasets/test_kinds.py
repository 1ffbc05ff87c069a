"""Every dataset on small files in its original schema, ugly records included."""

import json
import shutil
import zipfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdswitch.datasets import loading, trace
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.records import read_records
from pdswitch.datasets.sample import DatasetError, Lengths, Sample, Skipped
from pdswitch.datasets.source import input_files
from pdswitch.datasets.synthetic import draw_lengths

FIXTURES = Path(__file__).parents[1] / "support/fixtures/datasets"


def found(name, **options):
    """Return the requests and the counts of skipped records."""
    outcomes, revision = load(dataset_options(name, options))
    assert revision is None
    outcomes = list(outcomes)
    skipped = Counter(o.reason for o in outcomes if isinstance(o, Skipped))
    return [o for o in outcomes if not isinstance(o, Skipped)], skipped


def parquet(path, rows):
    """Write rows as one of the hub's shards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_alpaca_in_its_original_form():
    samples, skipped = found("alpaca", source=str(FIXTURES / "alpaca/original.json"))
    assert [(s.source_id, s.prompt, s.reference_output) for s in samples] == [
        ("alpaca-0", "Name a bird that cannot fly.", "The kiwi."),
        (
            "alpaca-1",
            "Put the words into alphabetical order.\n\nplum, apple, fig",
            "apple, fig, plum",
        ),
        ("alpaca-2", "Übersetze ins Englische: Guten Morgen 🌞", "Good morning 🌞"),
        ("alpaca-3", "Count to three.", "One, two, three."),
        ("alpaca-12", "Which month comes after May?", "June."),
    ]
    assert skipped == {
        "empty text": 2,
        "instruction or input that is no text": 2,
        "answer that is no text": 1,
        "text that is not valid Unicode": 1,
        "text with a NUL byte": 1,
        "record that is no object": 1,
    }


def test_alpaca_of_the_hub_is_cut_before_the_answer(tmp_path):
    rows = read_records(FIXTURES / "alpaca/hub_rows.jsonl")
    parquet(tmp_path / "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", rows)
    samples, skipped = found("alpaca", source=str(tmp_path))
    start = "Below is a task. Write what completes it.\n\n### Instruction:\n"
    assert [(s.prompt, s.reference_output) for s in samples] == [
        (start + "Name a bird that cannot fly.", "The kiwi."),
        (start + "Sort.\n\n### Input:\n2, 1", "1, 2"),
    ]
    assert skipped == {"text without ### Response:": 1}


def test_sharegpt_takes_each_human_turn_with_the_answer_after_it():
    samples, skipped = found(
        "sharegpt", sharegpt_path=str(FIXTURES / "sharegpt/conversations.json")
    )
    assert [(s.source_id, s.prompt, s.reference_output) for s in samples] == [
        ("sharegpt-aaa_0-0", "What is a quay?", "A place where ships are loaded."),
        ("sharegpt-aaa_0-2", "And a pier?", "It stands on pillars in the water."),
        ("sharegpt-bbb_7-1", "Shorter, please.", "Fine."),
        ("sharegpt-ccc_0-1", "Hello?", "Hi."),
        ("sharegpt-ddd_0-1", "Second question.", "To the second: yes."),
        ("sharegpt-iii_0-2", "Whole: 😀", "Good."),
        ("sharegpt-10-0", "No id here.", "It gets its place."),
        ("sharegpt-zzz_0-2", "Bye.", "Bye."),
    ]
    assert skipped == {
        "human turn without an answer": 2,
        "conversation without a human turn": 2,
        "turn that is no text": 2,
        "conversation that is no list of turns": 1,
        "text that is not valid Unicode": 1,
        "id that is there already": 1,
        "record that is no object": 1,
        "empty text": 1,
    }


@pytest.mark.parametrize(
    ("human", "answer"),
    [
        ({"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}),
        ({"from": "Human", "value": "Q"}, {"from": "GPT", "value": "A"}),
        ({"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}),
        ({"from": " USER ", "value": "Q"}, {"from": "ChatGPT", "value": "A"}),
        ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}),
        ({"role": "human", "value": "Q"}, {"from": "model", "content": "A"}),
        (
            {"from": None, "value": None, "role": "user", "content": "Q"},
            {"from": "gpt", "value": "A", "role": None, "content": None},
        ),
    ],
)
def test_sharegpt_turns_in_every_form(tmp_path, human, answer):
    rows = [
        {"id": "all", "conversations": [{"role": "system", "content": "S"}, human, answer]},
        {"id": "none", "conversations": [answer]},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    samples, skipped = found("sharegpt", sharegpt_path=str(tmp_path / "t.json"))
    assert samples == [Sample("sharegpt-all-1", "Q", "A")]
    assert skipped == {"conversation without a human turn": 1}


@pytest.mark.parametrize(
    "turns", [[], [None], ["Q", "A"], [{}], [{"from": ["human"], "value": "Q"}], [{"text": "Q"}]]
)
def test_sharegpt_conversations_without_a_speaker_are_counted(tmp_path, turns):
    (tmp_path / "t.json").write_text(json.dumps([{"conversations": turns}]))
    samples, skipped = found("sharegpt", sharegpt_path=str(tmp_path / "t.json"))
    assert samples == []
    assert skipped == {"conversation without a human turn": 1}


def test_sharegpt_in_a_folder_under_its_own_name(tmp_path):
    file = FIXTURES / "sharegpt/conversations.json"
    shutil.copy(file, tmp_path / "ShareGPT_V3_unfiltered_cleaned_split.json")
    assert found("sharegpt", sharegpt_path=str(tmp_path)) == found(
        "sharegpt", sharegpt_path=str(file)
    )


def test_longbench_gives_the_short_ones_first():
    samples, skipped = found("longbench", source=str(FIXTURES / "longbench"))
    ids = [s.source_id.removeprefix("longbench-") for s in samples]
    assert ids == ["q2", "q4", "q3", "q1", "q7"]
    assert [s.reference_output for s in samples] == ["B", "D", "B", "B", "B"]
    assert skipped == {
        "answer that is none of A, B, C and D": 1,
        "context, question or choice that is no text": 1,
        "id that is there already": 1,
    }
    context, question, choices = (samples[0].prompt.find(t) for t in ("Door 2", "has door", "(A)"))
    assert 0 < context < question < choices
    assert "(A) red\n(B) blue\n(C) green\n(D) white" in samples[0].prompt


def test_longbench_v1_lets_the_tasks_take_turns():
    samples, skipped = found("longbench_v1", source=str(FIXTURES / "longbench_v1"))
    tasks = [s.source_id.removeprefix("longbench_v1-") for s in samples]
    assert tasks == [
        "hotpotqa-hotpotqa0",
        "gov_report-gov_report0",
        "lcc-lcc0",
        "hotpotqa-hotpotqa1",
        "hotpotqa-hotpotqa2",
    ]
    assert skipped == {
        "answers that are no list of texts": 1,
        "context or input that is no text": 1,
    }
    assert samples[0].reference_output == "Ada"
    # What looks like a form in the context is left alone.
    assert "built by {Ada}, who is {input} to nobody." in samples[0].prompt
    assert samples[0].prompt.endswith("Question: Who built house 0?\nAnswer:")
    assert samples[2].prompt.endswith("return {x:Next line of code:\n")


def test_longbench_v1_tasks_by_name_from_the_hub_s_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in (FIXTURES / "longbench_v1/data").iterdir():
            archive.write(file, f"data/{file.name}")
    options = {"tasks": ["lcc", "hotpotqa_e"]}
    samples, _ = found("longbench_v1", source=str(tmp_path), **options)
    assert [s.source_id for s in samples] == [
        "longbench_v1-lcc-lcc0",
        "longbench_v1-hotpotqa_e-hotpotqa_e0",
    ]
    assert found("longbench_v1", source=str(tmp_path / "data.zip"), **options)[0] == samples


@pytest.mark.parametrize("place", [60, 80, 100])
def test_longbench_v1_from_a_damaged_archive(tmp_path, place):
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(FIXTURES / "longbench_v1/data/lcc.jsonl", "data/lcc.jsonl")
    content = bytearray((tmp_path / "data.zip").read_bytes())
    content[place] ^= 0xFF
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(DatasetError, match=r"data.zip is no whole zip archive; fetch it again"):
        found("longbench_v1", source=str(tmp_path), tasks=["lcc"])


def test_longbench_v1_from_one_file_of_all_tasks(tmp_path):
    lines = [file.read_text() for file in sorted((FIXTURES / "longbench_v1/data").iterdir())]
    (tmp_path / "all.jsonl").write_text("".join(lines))
    samples, _ = found("longbench_v1", source=str(tmp_path / "all.jsonl"), tasks=["gov_report"])
    assert [s.source_id for s in samples] == ["longbench_v1-gov_report-gov_report0"]


def test_longbench_v1_with_the_benchmark_s_own_words():
    forms = str(FIXTURES / "longbench_v1/forms.json")
    options = {"source": str(FIXTURES / "longbench_v1"), "prompt_forms": forms}
    samples, _ = found("longbench_v1", tasks=["lcc", "hotpotqa"], **options)
    assert samples[0].prompt == "GO ON def f(x):\n    return {x:"
    assert samples[1].prompt.startswith("READ Passage 1:")
    assert samples[1].prompt.endswith("AND SAY Who built house 0?")
    assert forms in input_files(dataset_options("longbench_v1", options))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tasks": ["lcc", "trek"]}, "tasks names trek, which LongBench has not"),
        ({"tasks": ["lcc", "trec"]}, "holds neither data.zip nor files of the tasks trec"),
        ({"prompt_forms": "/nowhere.json"}, "prompt_forms /nowhere.json cannot be read"),
        (
            {"prompt_forms": str(FIXTURES / "custom/prompts.json")},
            "is no map from tasks to texts with {context}",
        ),
    ],
)
def test_longbench_v1_mistakes(options, sentence):
    with pytest.raises(DatasetError, match=sentence):
        found("longbench_v1", source=str(FIXTURES / "longbench_v1"), **options)


def test_lmsys_takes_the_first_user_turn(tmp_path):
    rows = list(read_records(FIXTURES / "lmsys/rows.jsonl"))
    for shard in range(2):
        part = rows[shard * 4 : shard * 4 + 4]
        parquet(tmp_path / f"data/train-0000{shard}-of-00002-0123456789abcdef.parquet", part)
    samples, skipped = found("lmsys", source=str(tmp_path))
    assert [(s.source_id, s.prompt, s.reference_output) for s in samples] == [
        ("lmsys-c0", "How deep is a well?", "It depends."),
        ("lmsys-c1", "No, I do.", "All right."),
        ("lmsys-c6", "Last one.", "Yes."),
    ]
    assert skipped == {
        "user turn without an answer": 1,
        "conversation without a user turn": 2,
        "empty text": 1,
        "id that is there already": 1,
    }


def test_processbench_joins_the_steps():
    samples, skipped = found("processbench", source=str(FIXTURES / "processbench"))
    assert [s.source_id for s in samples] == ["processbench-gsm8k-3", "processbench-gsm8k-4"]
    assert samples[0].reference_output == "She had 3.\n\nShe ate one.\n\nThe answer is 2."
    assert skipped == {
        "steps that are no list of texts": 2,
        "problem that is no text": 1,
        "id that is there already": 1,
        "empty text": 1,
    }
    samples, _ = found(
        "processbench", source=str(FIXTURES / "processbench"), processbench_split="omni-math"
    )
    assert [s.source_id for s in samples] == ["processbench-omnimath-0"]


def test_custom_prompts_as_given():
    columns = {"prompt_column": "question", "output_column": "answer", "id_column": "name"}
    file = str(FIXTURES / "custom/prompts.jsonl")
    samples, skipped = found("mine", kind="custom", custom_prompts=file, **columns)
    assert [(s.source_id, s.prompt, s.reference_output) for s in samples] == [
        ("a", "What is a raft?", "A flat boat."),
        ("b", "What is a weir?", None),
        (
            "e",
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            "Because.",
        ),
    ]
    assert skipped == {
        "line that is not JSON": 1,
        "id that is there already": 1,
        "prompt that is neither text nor a list of messages": 1,
        "record without its id": 1,
        "record that is no object": 1,
    }
    samples, skipped = found(
        "mine", kind="custom", custom_prompts=str(FIXTURES / "custom/prompts.csv"), **columns
    )
    assert [(s.source_id, s.prompt, s.reference_output) for s in samples] == [
        ("a", "What is a raft, and who\nuses one?", "A flat boat."),
        ("b", 'He said "hello"', None),
        ("e", "Umlaut: ä", "ja"),
    ]
    assert skipped == {"row with a wrong number of fields": 2}


USER = {"role": "user", "content": "Q"}
SYSTEM = {"role": "system", "content": "S"}
ANSWER = {"role": "assistant", "content": "A"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": None}]}


@pytest.mark.parametrize(
    ("chat", "prompt", "answer"),
    [
        ([USER], [USER], None),
        ([SYSTEM, USER, ANSWER], [SYSTEM, USER], "A"),
        ([USER, {"role": "model", "content": "A"}], [USER], "A"),
        ([USER, ANSWER, USER, ANSWER], [USER, ANSWER, USER], "A"),
        ([USER, ANSWER, ANSWER], [USER], "A\n\nA"),
        ([USER, ANSWER | {"content": ""}], [USER], None),
        ([USER | {"name": None, "tool_calls": None}], [USER], None),
        (
            [USER, CALL, USER],
            [USER, {"role": "assistant", "tool_calls": [{"name": "f"}]}, USER],
            None,
        ),
    ],
)
def test_a_chat_ends_before_its_answer(tmp_path, chat, prompt, answer):
    (tmp_path / "t.jsonl").write_text(json.dumps({"messages": chat}))
    (sample,), _ = found(
        "custom", custom_prompts=str(tmp_path / "t.jsonl"), prompt_column="messages"
    )
    assert (sample.prompt, sample.reference_output) == (prompt, answer)


def test_a_chat_s_own_answer_gives_way_to_the_column_of_answers(tmp_path):
    rows = [
        {"messages": [USER, ANSWER], "output": "B"},
        {"messages": [USER, ANSWER], "output": None},
        {"messages": [ANSWER], "output": "B"},
        {"messages": [], "output": "B"},
        {"messages": [USER | {"content": None}], "output": "B"},
        {"messages": [SYSTEM | {"content": "\ud800"}, USER], "output": "B"},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    samples, skipped = found(
        "custom",
        custom_prompts=str(tmp_path / "t.json"),
        prompt_column="messages",
        output_column="output",
    )
    assert [(s.prompt, s.reference_output) for s in samples] == [([USER], "B"), ([USER], "A")]
    assert skipped == {
        "chat that is all answer": 1,
        "prompt that is neither text nor a list of messages": 2,
        "text that is not valid Unicode": 1,
    }


def test_ids_that_are_no_unicode_are_counted(tmp_path):
    (tmp_path / "t.csv").write_bytes("id,prompt\nM\xfcller,hello\nNeil,hi\n".encode("latin-1"))
    samples, skipped = found("custom", custom_prompts=str(tmp_path / "t.csv"), id_column="id")
    assert [s.source_id for s in samples] == ["Neil"]
    assert skipped == {"text that is not valid Unicode": 1}


def test_a_record_that_is_nested_very_deeply_is_read_or_counted(tmp_path):
    deep = "[" * 900 + "]" * 900
    message = f'{{"role": "user", "content": "Q", "more": {deep}}}'
    (tmp_path / "t.jsonl").write_text(f'{{"prompt": [{message}]}}\n{{"prompt": "Q"}}\n')
    samples, skipped = found("custom", custom_prompts=str(tmp_path / "t.jsonl"))
    assert samples[-1].prompt == "Q"
    assert len(samples) + skipped.total() == 2


def test_custom_prompts_from_parquet_and_from_a_folder(tmp_path):
    rows = list(read_records(FIXTURES / "custom/prompts.json"))
    file = parquet(tmp_path / "prompts.parquet", rows)
    expected = [("custom-0", "What is a raft?", None), ("custom-1", "What is a weir?", None)]
    for place in (file, tmp_path, FIXTURES / "custom/prompts.json"):
        samples, _ = found("custom", custom_prompts=str(place))
        assert [tuple(sample) for sample in samples] == expected


@pytest.mark.parametrize(
    ("file", "options", "lengths", "skipped"),
    [
        (
            "azure.csv",
            {},
            [(37, 4), (12, 9), (5, 2)],
            {
                "length that is no whole number": 1,
                "answer of no tokens": 1,
                "prompt of no tokens": 1,
            },
        ),
        ("burstgpt.csv", {}, [(21, 8), (9, 2)], {"answer of no tokens": 1}),
        ("mooncake.jsonl", {}, [(60, 5), (18, 7)], {"length that is no whole number": 1}),
        (
            "own.csv",
            {"input_column": "asked", "output_column": "told"},
            [(11, 3), (13, 6)],
            {"length that is no whole number": 2},
        ),
    ],
)
def test_traces(file, options, lengths, skipped):
    requests, left_out = found("trace", source=str(FIXTURES / "trace" / file), **options)
    assert all(isinstance(request, Lengths) for request in requests)
    assert [(r.prompt_tokens, r.output_tokens) for r in requests] == lengths
    assert left_out == skipped


def test_lengths_in_every_type(tmp_path):
    values = ["12", "12.0", " 12 ", 12, 12.0, Decimal("12"), Decimal("12.00")]
    bad = ["", "x", "nan", "inf", "1e400", None, True, 12.5, Decimal("12.5"), [12], "0x1"]
    huge = [3 * 10**9, "3e9", 10**30, Decimal(2**31)]
    options = dataset_options("trace", {"source": "t"})
    outcomes = []
    for value in [*values, *bad, *huge]:
        record = {"ContextTokens": 5, "GeneratedTokens": value}
        outcomes += loading._outcomes([record], trace, options)
    assert [getattr(o, "output_tokens", None) for o in outcomes[: len(values)]] == [12] * 7
    assert Counter(o.reason for o in outcomes[len(values) :]) == {
        "length that is no whole number": len(bad),
        "length above 2,147,483,647 tokens": len(huge),
    }


def test_decimal_lengths_of_parquet_beside_times_that_python_has_not(tmp_path):
    table = {
        "TIMESTAMP": pa.array([300_000_000_000_000_000] * 2, pa.timestamp("us")),
        "ContextTokens": pa.array([Decimal("12.00"), Decimal("0.50")]),
        "GeneratedTokens": pa.array([7, 3 * 10**9]),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    for source in (tmp_path / "t.parquet", tmp_path):
        requests, skipped = found("trace", source=str(source))
        assert requests == [Lengths("trace-0", 12, 7, 0)]
        assert skipped == {"length that is no whole number": 1}


LAWS = [
    ({"law": "fixed", "tokens": 7}, 7, 0),
    ({"law": "uniform", "low": 10, "high": 30}, 20, np.sqrt((21**2 - 1) / 12)),
    ({"law": "geometric", "mean": 40}, 40, np.sqrt(40 * 39)),
    ({"law": "lognormal", "mean": 200, "cv": 0.8}, 200, 160),
    ({"law": "gamma", "mean": 200, "cv": 1.3}, 200, 260),
]


@pytest.mark.parametrize(("law", "mean", "deviation"), LAWS, ids=[law["law"] for law, _, _ in LAWS])
def test_lengths_follow_their_law(law, mean, deviation):
    options = dataset_options("synthetic", {"output_lengths": law})
    lengths = draw_lengths(options.output_lengths, 40_000, np.random.default_rng(1))
    assert lengths.min() >= 1
    # Within five standard errors of the mean; the heavy tails have the widest error.
    assert abs(lengths.mean() - mean) <= 5 * deviation / 200 + 1e-9
    assert lengths.std() == pytest.approx(deviation, rel=0.08, abs=1e-9)


@pytest.mark.parametrize("law", ["lognormal", "gamma"])
def test_lengths_of_the_widest_laws_are_whole_numbers_from_one(law):
    widest = {"law": law, "mean": 2**30, "cv": 100}
    options = dataset_options("synthetic", {"output_lengths": widest})
    lengths = draw_lengths(options.output_lengths, 40_000, np.random.default_rng(1))
    assert lengths.min() >= 1
    assert lengths.max() == 2**31


def test_synthetic_lengths_do_not_change_when_more_are_asked_for():
    few, many = (found("synthetic", num_requests=n)[0] for n in (10, 5000))
    assert few == many[: len(few)]
    assert len(many) >= 5000
    other = found("synthetic", num_requests=10, seed=1)[0]
    assert [r.prompt_tokens for r in other] != [r.prompt_tokens for r in few]


def test_shuffling_a_file_keeps_every_request():
    options = {"sharegpt_path": str(FIXTURES / "sharegpt/conversations.json")}
    plain, skipped = found("sharegpt", **options)
    mixed, skipped_too = found("sharegpt", shuffle=True, seed=2, **options)
    assert {s.source_id for s in mixed} == {s.source_id for s in plain}
    assert [s.source_id for s in mixed] != [s.source_id for s in plain]
    assert skipped == skipped_too


def test_shuffling_a_folder_of_the_hub_s_layout(tmp_path):
    rows = [{"prompt": f"Question {i}?"} for i in range(300)]
    for shard in range(3):
        parquet(tmp_path / f"data/train-0000{shard}-of-00003.parquet", rows[shard::3])
    orders = [
        [
            s.prompt
            for s in found("custom", custom_prompts=str(tmp_path), shuffle=True, seed=seed)[0]
        ]
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(row["prompt"] for row in rows)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("sharegpt", {"sharegpt_path": "alpaca/original.json"}, "needs conversations"),
        ("alpaca", {"source": "trace/azure.csv"}, "needs text or instruction, output"),
        ("lmsys", {"source": "alpaca/hub_rows.jsonl"}, "needs conversation"),
        ("longbench", {"source": "processbench/gsm8k.json"}, "needs answer, choice_A"),
        ("processbench", {"source": "trace/mooncake.jsonl"}, "needs problem, steps"),
        (
            "custom",
            {"custom_prompts": "custom/prompts.csv"},
            "has answer, name, question, but needs prompt; name the right columns",
        ),
        (
            "trace",
            {"source": "trace/own.csv"},
            "needs ContextTokens, GeneratedTokens or Request tokens, Response tokens or ",
        ),
    ],
)
def test_wrong_columns_are_named(name, options, sentence):
    ((key, file),) = options.items()
    with pytest.raises(DatasetError, match=sentence) as caught:
        found(name, **{key: str(FIXTURES / file)})
    assert "\n" not in str(caught.value)


def test_strange_names_of_columns_stay_on_one_line(tmp_path):
    (tmp_path / "t.csv").write_text(f'"a\nb",{"c" * 5000}\n1,2\n')
    with pytest.raises(DatasetError, match=r"has a b, c{40}, but needs prompt; ") as caught:
        found("custom", custom_prompts=str(tmp_path / "t.csv"))
    assert "\n" not in str(caught.value)


def test_a_csv_of_a_header_only(tmp_path):
    (tmp_path / "t.csv").write_text("prompt\n")
    with pytest.raises(DatasetError, match="holds no records"):
        found("custom", custom_prompts=str(tmp_path / "t.csv"))


def test_a_folder_without_data_or_split(tmp_path):
    with pytest.raises(DatasetError, match="holds no JSON, CSV or Parquet files") as caught:
        found("alpaca", source=str(tmp_path))
    assert "\n" not in str(caught.value)
    parquet(tmp_path / "data/train-00000-of-00001.parquet", [{"prompt": "x"}])
    with pytest.raises(DatasetError, match="has no split test, but train; name one"):
        found("custom", custom_prompts=str(tmp_path), split="test")


def test_paths_that_are_not_there():
    for path in ("/no/such/file.json", "./data/nothing", "missing.csv"):
        with pytest.raises(
            DatasetError, match=f"there is no file or folder {path}; fetch it first"
        ):
            found("custom", custom_prompts=path)
    with pytest.raises(DatasetError, match="revision v1 is given for the local path"):
        found("custom", custom_prompts=str(FIXTURES / "custom/prompts.json"), revision="v1")


def test_the_files_a_dataset_depends_on(tmp_path):
    parquet(tmp_path / "data/train-00000-of-00001.parquet", [{"prompt": "x"}])
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/lock").write_text("")
    options = dataset_options("custom", {"custom_prompts": str(tmp_path)})
    assert input_files(options) == [str(tmp_path / "data/train-00000-of-00001.parquet")]
    assert input_files(dataset_options("alpaca", {})) == []
    assert input_files(dataset_options("demo", {})) == []


def test_a_system_message_may_be_empty(tmp_path):
    chat = [{"role": "system", "content": ""}, {"role": "user", "content": "Why?"}]
    silent = [{"role": "system", "content": "S"}, {"role": "user", "content": ""}]
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in (chat, silent)))
    samples, skipped = found("mine", kind="custom", custom_prompts=str(file))
    assert [sample.prompt for sample in samples] == [chat]
    assert skipped == {"empty text": 1}
