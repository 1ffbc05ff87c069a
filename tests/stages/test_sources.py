"""The sources a rule watches are the modules its script really runs."""

import json
import subprocess
import sys
import time

import pytest

from pdswitch.engine.spec import ENGINE_SOURCES
from pdswitch.estimation.catalogue import estimator_modules
from pdswitch.figures.catalogue import figures
from pdswitch.stages.sources import stage_sources

STAGES = [
    "model",
    "prompts",
    "datasets_table",
    "step_times",
    "fit",
    "termination",
    "estimate",
    "threshold",
    "plan",
    "online",
    "throughput",
    "aggregate",
    "summary",
    "figure",
    "report",
]

# Not part of the workflow that is traced: of a checkpoint in a wheel, of optimize_batch_size.
NOT_TRACED = ["conversion", "kv_budget", "slots"]

# What the finished workflow chose by name.
CHOSEN = {
    "estimate": estimator_modules(),
    "prompts": ["pdswitch.datasets.demo", "pdswitch.datasets.custom"],
    "figure": [figure.module for figure in figures().values()],
    "report": [figure.module for figure in figures().values()],
}
MEASURED = ("step_times", "termination", "online", "throughput")


@pytest.fixture(scope="module")
def traced(finished_workflow) -> dict[str, set[str]]:
    """The modules of ours that every script really ran, by its file name, in a whole workflow."""
    folder = finished_workflow.folder
    ran: dict[str, set[str]] = {}
    deadline = time.monotonic() + 30
    # The engine leaves some time after the workflow.
    while "host.py" not in ran and time.monotonic() < deadline:
        time.sleep(0.5)
        for file in (folder / "trace").glob("*.json"):
            record = json.loads(file.read_text())
            files = (path.removeprefix(f"{folder}/") for path in record["files"])
            ran.setdefault(record["main"], set()).update(files)
    return ran


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_ran_is_what_its_rule_declares(root, traced, stage):
    declared = stage_sources(root, stage, *CHOSEN.get(stage, ()))
    ran = traced[f"{stage}.py"] | (traced["host.py"] if stage in MEASURED else set())
    assert sorted(ran) == sorted(declared)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_an_engine_ran_is_in_its_key(traced):
    ran = {path.removeprefix("workflow/pdswitch/") for path in traced["host.py"]}
    # A package's docstring changes no measurement, nor does the place of the engine's socket.
    others = {name for name in ran - set(ENGINE_SOURCES) if not name.endswith("__init__.py")}
    assert others <= {"engine/device.py"}
    assert set(ENGINE_SOURCES) <= ran


def test_measured_stages_watch_the_engine_process_and_no_theory(root):
    for stage in MEASURED:
        declared = stage_sources(root, stage)
        assert "workflow/pdswitch/plugin/scheduler.py" in declared
        assert "workflow/pdswitch/engine/host.py" in declared
        modelled = ("theory", "figures", "estimation", "profiling/fit")
        assert not [path for path in declared if any(name in path for name in modelled)]
    assert not [path for path in stage_sources(root, "threshold") if "engine" in path]


def test_every_rule_s_stage_is_listed_here(root):
    import re

    used = set()
    for file in (root / "workflow/rules").glob("*.smk"):
        used |= set(re.findall(r'watched_files\(\s*"(\w+)"', file.read_text()))
    assert used == {*STAGES, *NOT_TRACED}


@pytest.mark.parametrize("stage", NOT_TRACED)
def test_what_other_stages_import_is_what_their_rules_declare(root, tmp_path, stage):
    subprocess.run(
        [sys.executable, f"workflow/scripts/{stage}.py", "--help"],
        cwd=root,
        env={
            "PYTHONPATH": f"{root / 'workflow'}:{root / 'tests/support/tracer'}",
            "PDSWITCH_TRACE": str(tmp_path),
        },
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (record,) = tmp_path.glob("*.json")
    files = [file.removeprefix(f"{root}/") for file in json.loads(record.read_text())["files"]]
    assert sorted(files) == sorted(stage_sources(root, stage))


def test_a_dataset_s_loader_is_watched_by_that_dataset_alone(root):
    declared = stage_sources(root, "prompts", "pdswitch.datasets.alpaca")
    assert "workflow/pdswitch/datasets/alpaca.py" in declared
    assert "workflow/pdswitch/datasets/sharegpt.py" not in declared


def test_jobs_start_without_torch_or_vllm(root):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['workflow/scripts/throughput.py', '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "assert not {'torch', 'vllm', 'transformers'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root / "workflow"), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
