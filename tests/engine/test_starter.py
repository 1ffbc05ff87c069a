"""An engine is the same whether a shell starts it or a Snakemake job. Real vLLM and Snakemake."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from pdswitch.engine.compliance import departures
from pdswitch.files import write_json
from pdswitch.model import describe_model

pytestmark = [pytest.mark.rare, pytest.mark.timeout(600)]

ENGINE = {
    "n_slots": 4,
    "max_input_tokens": 100,
    "max_output_tokens": 100,
    "device": "cpu",
    "threads": 1,
}
# As a cluster's job, or a careless profile, would have them.
EXPORTED = {"SLURM_CPUS_PER_TASK": "2", "OMP_PROC_BIND": "false", "LC_ALL": "POSIX"}


def engine_started_by(
    starter: str, folder: Path, root: Path, tiny_model: Path, environment: dict[str, str]
) -> dict:
    folder.mkdir()
    model, output = folder / "model.json", folder / "facts.json"
    description = describe_model(str(tiny_model), str(tiny_model), None)
    write_json(model, msgspec.to_builtins(description))
    command = [sys.executable, str(root / "tests/support/engine_facts.py"), "--model", str(model)]
    command += ["--engine", json.dumps(ENGINE), "--idle-timeout-s", "1", "--output", str(output)]
    own = environment | {"PDSWITCH_RUNTIME_DIR": str(folder / "run")}
    if starter == "job":
        script = shlex.join(command).replace("{", "{{").replace("}", "}}")
        rule = f"rule facts:\n    threads: workflow.cores\n    shell: {script!r}\n"
        (folder / "Snakefile").write_text(rule)
        command = ["nice", "-n", "5", sys.executable, "-m", "snakemake", "--cores", "2"]
        own |= EXPORTED
    run = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(output.read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(found["facts"]["pid"]).wait(30)
    return found


@pytest.fixture(scope="module")
def started(tmp_path_factory, root, tiny_model) -> dict[str, dict]:
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    clean["PYTHONPATH"] = str(root / "workflow")
    return {
        starter: engine_started_by(
            starter, tmp_path_factory.mktemp("s") / starter, root, tiny_model, clean
        )
        for starter in ("shell", "job")
    }


def test_both_are_the_same_engine(started):
    shell, job = started["shell"]["facts"], started["job"]["facts"]
    assert shell["key"] == job["key"]
    assert shell["workers"][0]["torch_threads"] == 1
    if os.geteuid():  # only root can undo what nice did
        job["workers"][0]["nice"] = 0
    assert shell["workers"] == job["workers"]


def test_both_have_the_same_variables(started):
    ours = ("PDSWITCH_", "TMPDIR")  # where its socket lies; Snakemake names the folder /tmp
    variables = [
        {name: value for name, value in one["variables"].items() if not name.startswith(ours)}
        for one in started.values()
    ]
    assert variables[0] == variables[1]
    assert "OMP_NUM_THREADS" not in variables[0]


def test_both_pass_the_gate(started):
    for one in started.values():
        assert departures(one["facts"]) == []
