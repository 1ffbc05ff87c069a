"""The options of the datasets: defaults of the reference, one sentence for every mistake."""

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from pdswitch.datasets.options import (
    dataset_kinds,
    dataset_option_names,
    dataset_options,
    loader_module,
    option_class,
    option_errors,
    options_manual,
)


def test_defaults_are_the_reference_s():
    assert dataset_options("sharegpt", {}).sharegpt_path == (
        "./ShareGPT_V3_unfiltered_cleaned_split.json"
    )
    assert dataset_options("processbench", {}).processbench_split == "gsm8k"
    alpaca = dataset_options("alpaca", {})
    assert (alpaca.num_requests, alpaca.max_input_tokens) == (500, 32000)
    assert not alpaca.enable_thinking
    sources = {name: dataset_options(name, {}).location for name in ("longbench", "longbench_v1")}
    assert sources == {"longbench": "THUDM/LongBench-v2", "longbench_v1": "THUDM/LongBench"}
    assert dataset_options("lmsys", {}).location == "lmsys/lmsys-chat-1m"
    assert dataset_options("demo", {}).location is None


def test_a_name_of_one_s_own_carries_its_kind():
    options = dataset_options("support tickets", {"kind": "custom", "custom_prompts": "t.csv"})
    assert (options.kind, options.location) == ("custom", "t.csv")


def test_every_kind_has_a_loader():
    for kind in dataset_kinds():
        assert loader_module(kind) == f"pdswitch.datasets.{kind}"
        assert {"num_requests", "seed", "shuffle"} <= dataset_option_names(kind)


def test_an_unknown_kind_lists_those_that_are():
    with pytest.raises(
        ValueError, match=r"alpacca is not known; did you mean alpaca\? use one of alp"
    ):
        dataset_options("alpacca", {})


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("demo", {"sauce": "x"}, "datasets.demo.sauce is not a known key"),
        (
            "demo",
            {"num_requests": 0},
            "demo.num_requests is 0; use a whole number, at least 1",
        ),
        ("custom", {}, "custom_prompts is missing; give a local path or a hub id"),
        ("trace", {}, "source is missing; give a local path or a hub id"),
        (
            "trace",
            {"source": "t.csv", "input_column": "a"},
            "input_column and output_column go together",
        ),
        ("processbench", {"processbench_split": "gsm9k"}, "processbench_split is 'gsm9k'"),
        ("longbench_v1", {"tasks": []}, "tasks"),
        (
            "synthetic",
            {"input_lengths": {"law": "uniform", "low": 9, "high": 3}},
            r"low \(9\) is above high \(3\); swap them",
        ),
        (
            "synthetic",
            {"output_lengths": {"law": "gamma", "mean": 10}},
            "lengths.cv is missing",
        ),
        ("synthetic", {"output_lengths": {"law": "fixed", "tokens": 10**30}}, "tokens"),
        ("synthetic", {"output_lengths": {"law": "geometric", "mean": float("inf")}}, "mean"),
        ("synthetic", {"output_lengths": {"law": "zipf"}}, "output_lengths"),
    ],
)
def test_a_mistake_gets_one_sentence(name, options, sentence):
    with pytest.raises(ValidationError) as caught:
        dataset_options(name, options)
    text = option_errors(name, caught.value)
    assert "\n" not in text
    assert re.search(sentence, text)


def test_the_options_of_all_datasets_import_pydantic_only(root):
    code = (
        "import sys\n"
        "from pdswitch.datasets.options import dataset_kinds, option_class\n"
        "assert len(list(map(option_class, dataset_kinds()))) == 10\n"
        "heavy = {'numpy', 'pyarrow', 'datasets', 'transformers', 'huggingface_hub', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = {"PYTHONPATH": str(root / "workflow"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_manual_is_fresh_and_every_option_is_described(root):
    assert (root / "docs/dataset_options.md").read_text(encoding="utf-8") == options_manual()
    for options in map(option_class, dataset_kinds()):
        for name, field in options.model_fields.items():
            assert field.description, name


def test_the_documentation_names_every_dataset(root):
    text = (root / "docs/datasets.md").read_text(encoding="utf-8")
    assert [kind for kind in dataset_kinds() if f"`{kind}`" not in text] == []
