"""CONTRIBUTING.md's examples work: each is one new file in a copy of the library."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from figure_files import write_cell

EXAMPLE = re.compile(r"For example `(workflow/\S+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def examples(root) -> dict[str, str]:
    """The worked examples by path."""
    return dict(EXAMPLE.findall((root / "CONTRIBUTING.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def copy(root, examples, tmp_path_factory) -> Path:
    """A copy of the workflow with the examples, and nothing else, added to it."""
    folder = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "workflow", folder / "workflow", ignore=ignored)
    for path, text in examples.items():
        assert not (folder / path).exists()
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_an_online_estimator_is_one_class(root, tmp_path):
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(class .*?)```", text, re.DOTALL)
    assert len(example.splitlines()) <= 20
    shutil.copytree(root / "workflow", tmp_path / "workflow")
    file = tmp_path / "workflow/pdswitch/plugin/online_estimators.py"
    file.write_text(file.read_text().replace("ESTIMATORS =", f"{example}\n\nESTIMATORS =", 1))
    code = (
        "from pdswitch.config import parse_config\n"
        "from pdswitch.plugin.policy import Controller, Policy, ThresholdTable\n"
        "name = parse_config({'dataset': 'demo', 'online_p_estimator': 'last_length'})\n"
        "policy = Policy(kind='adaptive', table=ThresholdTable([0.1], [2, 5]),\n"
        "                estimator=name.online_p_estimator, update_interval=1)\n"
        "controller = Controller(policy, 8)\n"
        "controller.completed(4, 0.0, lambda: 0)\n"
        "print(controller.threshold)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "workflow")}
    line = [sys.executable, "-c", code]
    found = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "5\n"


@pytest.fixture
def run(copy):
    """Run Python in the copy and return what it prints."""

    def run(*arguments: object) -> str:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy / "workflow")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return run


def test_each_thing_has_a_short_example(examples):
    rooms = [Path(path).parent.name for path in examples]
    assert rooms == ["figures", "estimation", "datasets"]
    assert max(len(text.splitlines()) for text in examples.values()) <= 20


def test_the_figure_is_drawn_and_captioned(run, copy, tmp_path):
    cell = write_cell(tmp_path)
    requests, stem = cell / "termination/requests.parquet", tmp_path / "drawn"
    script = "workflow/scripts/figure.py"
    run(script, "answer_ages", "--dataset", "demo", "--inputs", requests, "--output-stem", stem)
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    shutil.copy(stem.with_suffix(".png"), cell / "demo_answer_ages.png")
    code = (
        "import sys; from pathlib import Path\n"
        "from pdswitch.figures.catalogue import figures\n"
        "from pdswitch.report.page import load_cell\n"
        "name = 'answer_ages'\n"
        "assert list(figures())[-1] == name\n"
        "cell = load_cell(Path(sys.argv[1]), {name: figures()[name].caption})\n"
        "print(cell.figures[0].caption)"
    )
    said = run("-c", code, cell / "demo_results.json")
    assert re.fullmatch(r"Lengths of \d+ answers, in order\.\n", said)


def test_config_and_schema_know_the_estimator_and_its_number_appears(run, tmp_path):
    cell = write_cell(tmp_path)
    code = (
        "from pdswitch.config import json_schema, parse_config\n"
        "parse_config({'dataset': 'demo', 'offline_p_estimator': 'median'})\n"
        "print(json_schema())"
    )
    schema = json.loads(run("-c", code))
    names = schema["properties"]["offline_p_estimator"]["enum"]
    assert names == ["mean", "censored", "ema_inverse", "ema_length", "median"]
    output = tmp_path / "termination.json"
    requests = cell / "termination/requests.parquet"
    line = ["--requests", requests, "--n-offline", 64, "--estimator", "median", "--output", output]
    run("workflow/scripts/estimate.py", *line)
    found = json.loads(output.read_text())
    assert found["method"] == "median"
    assert found["termination_probability"] == found["estimates"]["median"]["p"] > 0


def test_config_and_manual_know_the_dataset_and_it_gives_requests(run):
    code = (
        "import json\n"
        "from pdswitch.config import parse_config\n"
        "from pdswitch.datasets.loading import load\n"
        "from pdswitch.datasets.options import dataset_kinds, dataset_options\n"
        "config = parse_config({'dataset': 'counting'})\n"
        "options = dataset_options('counting', config.dataset_source('counting'))\n"
        "found, revision = load(options)\n"
        "print(json.dumps([dataset_kinds(), [sample.prompt for sample in found][:2]]))"
    )
    kinds, prompts = json.loads(run("-c", code))
    assert "counting" in kinds
    assert prompts == ["What comes after 0?", "What comes after 1?"]
