"""The sources a rule watches are the modules its script really runs."""

import subprocess
import sys

import pytest

from pdswitch.sources import stage_sources

STAGES = [
    "model",
    "prompts",
    "datasets_table",
    "step_times",
    "termination",
    "threshold",
    "online",
    "throughput",
    "aggregate",
    "summary",
    "figure",
    "report",
]

LIST_MODULES = """
import runpy, sys, pathlib
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "pdswitch" and getattr(module, "__file__", None):
        print("MODULE", pathlib.Path(module.__file__).resolve())
"""


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_script_imports_is_declared(root, stage):
    declared = {(root / path).resolve() for path in stage_sources(root, stage)}
    script = root / "workflow/scripts" / f"{stage}.py"
    run = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, str(script)],
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": str(root / "workflow"), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        check=True,
    )
    imported = {
        (root / line.removeprefix("MODULE ")).resolve()
        for line in run.stdout.splitlines()
        if line.startswith("MODULE ")
    }
    assert imported
    assert imported <= declared


def test_measured_stages_watch_the_engine_process_and_no_theory(root):
    for stage in ("throughput", "termination", "online", "step_times"):
        declared = stage_sources(root, stage)
        assert "workflow/pdswitch/scheduler.py" in declared
        assert "workflow/pdswitch/engine/host.py" in declared
        assert not [path for path in declared if "theory" in path or "figures" in path]
    assert not [path for path in stage_sources(root, "threshold") if "engine" in path]


def test_every_rule_s_stage_is_listed_here(root):
    import re

    used = set()
    for file in (root / "workflow/rules").glob("*.smk"):
        used |= set(re.findall(r'sources\("(\w+)"', file.read_text()))
    assert used == set(STAGES)


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
