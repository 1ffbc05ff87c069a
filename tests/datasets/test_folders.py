"""A folder of files: which of them are read, and by which rules."""

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pdswitch.datasets.layout import split_files
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.sample import DatasetError, Skipped
from pdswitch.datasets.source import input_files


def read(folder, **options):
    """Return the prompts of a folder, and the reasons of what is skipped."""
    outcomes = list(load(dataset_options("custom", {"custom_prompts": str(folder), **options}))[0])
    return (
        [outcome.prompt for outcome in outcomes if not isinstance(outcome, Skipped)],
        [outcome.reason for outcome in outcomes if isinstance(outcome, Skipped)],
    )


def lines(*prompts):
    return "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)


def test_every_format_is_read_in_the_order_of_the_names(tmp_path):
    (tmp_path / "d.jsonl").write_text(lines("d"))
    (tmp_path / "b.csv").write_text("prompt\nb\n")
    (tmp_path / "c.tsv").write_text("prompt\tmore\nc\t1\n")
    (tmp_path / "e.json").write_text(json.dumps([{"prompt": "e"}]))
    (tmp_path / "sub").mkdir()
    pq.write_table(pa.table({"prompt": ["f"], "meta": [{"k": 1}]}), tmp_path / "sub/f.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "meta": ["text"]}), tmp_path / "a.parquet")
    assert read(tmp_path) == (["a", "b", "c", "d", "e", "f"], [])


def test_broken_lines_and_other_columns_spoil_nothing_else(tmp_path):
    (tmp_path / "a.jsonl").write_text('{broken\n{"prompt": "a"}\n{"prompt": 7}\n[1]\n')
    (tmp_path / "b.jsonl").write_text('{"prompt": "b", "meta": {"k": 0}}\n{"meta": 1}\n')
    (tmp_path / "c.csv").write_bytes(b"more,prompt\n1,c\n2\n3,caf\xe9\n")
    assert read(tmp_path) == (
        ["a", "b", "c"],
        [
            "line that is not JSON",
            "prompt that is neither text nor a list of messages",
            "record that is no object",
            "prompt that is neither text nor a list of messages",
            "row with a wrong number of fields",
            "text that is not valid Unicode",
        ],
    )


@pytest.mark.parametrize(
    "name", ["a[1]", "a{x}", "{a,b}", "~a", "~", "a*", "a?", "a::b", "%41", "a b"]
)
def test_a_name_is_a_name_and_no_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.jsonl").write_text(lines("in the folder"))
    (tmp_path / f"{name}.jsonl").write_text(lines("the file"))
    for place in (name, str(tmp_path / name)):
        assert read(place) == (["in the folder"], [])
        assert read(f"{place}.jsonl") == (["the file"], [])
        options = dataset_options("custom", {"custom_prompts": f"{place}/{name}.jsonl"})
        assert input_files(options) == [f"{place}/{name}.jsonl"]


def test_a_home_folder_is_still_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text(lines("home"))
    assert read("~/a.jsonl") == (["home"], [])


@pytest.mark.parametrize("name", ["~nobody-has-this-name", "a\0b", "a" * 5000, "a/" * 3000])
def test_no_name_ends_in_a_traceback(name):
    with pytest.raises(DatasetError, match=r"there is no file or folder|HF_HUB_OFFLINE"):
        read(name)
    assert input_files(dataset_options("custom", {"custom_prompts": name})) == []


def test_what_is_left_out_is_said(tmp_path, caplog):
    (tmp_path / "train.jsonl").write_text(lines("a"))
    for name in ("test.csv", "more.csv", "notes.txt", "README.md", ".hidden.jsonl"):
        (tmp_path / name).write_text("prompt\nx\n")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path) == (["a"], [])
    assert caplog.messages == [
        f"{tmp_path}: 1 of its files hold this split; left out: more.csv, notes.txt, test.csv"
    ]
    assert read(tmp_path, split="test") == (["x"], [])


def test_a_file_without_records_is_counted_and_said(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.json").write_text('{\n  "version": 1\n}\n')
    (tmp_path / "c.csv").write_bytes(b"\x00\x01")
    with pytest.raises(DatasetError, match=r"a.jsonl is empty; fetch it again"):
        read(tmp_path)
    (tmp_path / "d.csv").write_text("prompt\nd\n")
    caplog.clear()
    assert read(tmp_path) == (["d"], ["file without records"] * 3)
    assert [message.split(" ")[2] for message in caplog.messages] == [
        str(tmp_path / name) for name in ("a.jsonl", "b.json", "c.csv")
    ]


def test_a_file_that_was_cut_ends_the_stage(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines("a"))
    (tmp_path / "b.json").write_text('[{"prompt": "b"}')
    with pytest.raises(DatasetError, match=r"b.json ends in the middle of its list"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("names", "split", "chosen"),
    [
        (["b.csv", "a.jsonl", "c.txt", "dataset_infos.json"], "train", ["a.jsonl", "b.csv"]),
        (["train.csv", "test.csv", "more.csv"], "train", ["train.csv"]),
        (["my-test-1.csv", "trainer.csv", "training.csv"], "train", ["training.csv"]),
        (["my-test-1.csv", "trainer.csv", "training.csv"], "test", ["my-test-1.csv"]),
        (["dev/a.csv", "train/b.csv", "train.csv"], "train", ["train/b.csv"]),
        (["x/val_2/a.csv", "train/b.csv"], "validation", ["x/val_2/a.csv"]),
        (
            ["data/odd-00001-of-00002.parquet", "data/odd-00000-of-00002-0f.parquet", "a.csv"],
            "odd",
            ["data/odd-00000-of-00002-0f.parquet", "data/odd-00001-of-00002.parquet"],
        ),
        (["a.csv.gz", "b.jsonl.zst", "c.zip"], "train", ["a.csv.gz", "b.jsonl.zst"]),
    ],
)
def test_the_files_of_a_split_follow_from_the_names(names, split, chosen):
    assert split_files(names, {}, split, None) == chosen


CARD = {
    "configs": [
        {"config_name": "first", "data_files": "one/*.csv"},
        {
            "config_name": "second",
            "default": True,
            "data_files": [
                {"split": "train", "path": ["./two/b*", "two/a.csv"]},
                {"split": "test", "path": "two/**/deep.csv"},
            ],
        },
        {"config_name": "third", "data_dir": "three"},
    ]
}
NAMES = ["one/a.csv", "two/a.csv", "two/b1.csv", "two/x/deep.csv", "three/train.csv", "three/t.md"]


@pytest.mark.parametrize(
    ("split", "subset", "chosen"),
    [
        ("train", None, ["two/b1.csv", "two/a.csv"]),
        ("test", "second", ["two/x/deep.csv"]),
        ("train", "first", ["one/a.csv"]),
        ("train", "third", ["three/train.csv"]),
    ],
)
def test_a_card_may_say_which_files_a_split_has(split, subset, chosen):
    assert split_files(NAMES, CARD, split, subset) == chosen


@pytest.mark.parametrize(
    ("card", "split", "subset", "sentence"),
    [
        ({}, "test", None, "has no split test, but train; name one of them"),
        ({}, "train", "fourth", r"has no subsets; remove subset \(fourth\)"),
        (CARD, "train", "fourth", "has no subset fourth; name one of first, second, third"),
        (CARD, "test", "first", "has no split test, but train"),
        ({"configs": CARD["configs"][::2]}, "train", None, "name one of first, third as subset"),
        ({"configs": [{"config_name": "x", "data_files": "no"}]}, "train", None, "but none"),
        ({"configs": [{"config_name": "x", "data_files": "a**b"}]}, "train", None, "no patterns"),
        ({"configs": "x"}, "test", None, "has no split test, but train"),
    ],
)
def test_a_split_or_subset_that_is_not_there_is_named(card, split, subset, sentence):
    with pytest.raises(DatasetError, match=sentence):
        split_files([name.replace("train", "a") for name in NAMES], card, split, subset)


def test_the_card_of_a_folder_is_read(tmp_path):
    (tmp_path / "one.csv").write_text("prompt\n1\n")
    (tmp_path / "two.csv").write_text("prompt\n2\n")
    card = tmp_path / "README.md"
    card.write_text("---\nconfigs:\n- config_name: x\n  data_files: two.csv\n---\n# Two\n")
    assert read(tmp_path) == (["2"], [])
    card.write_text("---\nconfigs: [}\n---\n# Two\n")
    with pytest.raises(DatasetError, match=r"has a README.md whose head is no YAML") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
