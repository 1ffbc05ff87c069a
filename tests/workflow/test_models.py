"""Several models in one workflow: one engine after the other, results side by side."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from checkout import Checkout, make_checkout

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory, tiny_model, finished_workflow) -> Checkout:
    """A small workflow with two models, without the figures."""
    folder = tmp_path_factory.mktemp("two-models")
    # The same weights by another name: another model.
    other = shutil.copytree(tiny_model, folder / "models/another")
    config = finished_workflow.config() | {
        "model": None,
        "models": {str(tiny_model): {}, str(other): {"engine": {"max_num_batched_tokens": 2048}}},
        "datasets": ["demo"],
        "batch_size": 2,
        "num_requests": 8,
        "repeats": 1,
        "k_grid": [2],
    }
    checkout = make_checkout(root, folder, config, finished_workflow.environment)
    checkout.snakemake("results/summary.csv", "datasets")
    return checkout


def run_facts(checkout: Checkout) -> list[dict]:
    """What run.json says of every measured job, in the order they were run."""
    files = list((checkout.folder / "results").glob("*/**/run.json"))
    facts = [json.loads(file.read_text()) for file in files if "profile" not in file.parts]
    return sorted(facts, key=lambda one: one["started_at"])


def test_every_engine_is_started_once_and_in_the_order_of_the_config(finished):
    models = [Path(facts["engine"]["model"]).name for facts in run_facts(finished)]
    half = len(models) // 2
    assert half >= 4
    assert models == ["tiny"] * half + ["another"] * half
    assert len(list((finished.folder / "logs/engine").iterdir())) == 2


def test_each_model_has_its_own_engine_options(finished):
    budgets = {
        Path(facts["engine"]["model"]).name: facts["engine"]["max_num_batched_tokens"]
        for facts in run_facts(finished)
    }
    assert budgets == {"tiny": 8192, "another": 2048}


def test_summary_runs_and_datasets_table_name_the_model(finished):
    results = finished.folder / "results"
    with (results / "summary.csv").open(newline="", encoding="utf-8") as table:
        assert [row["model"] for row in csv.DictReader(table)] == ["tiny", "another"]
    assert set(pd.read_parquet(results / "runs.parquet")["model"]) == {"tiny", "another"}
    table = pd.read_csv(results / "datasets.csv")
    assert list(table["dataset"]) == ["demo, tiny", "demo, another"]
