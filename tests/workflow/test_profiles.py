"""The profiles: each plans the whole workflow, and asks for what a stage needs."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from checkout import Checkout, make_checkout

MEASURED = {"profile", "termination", "online", "throughput", "throughput_mixed"}
CLUSTERS = ("slurm", "cluster-generic", "kubernetes")


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory, root, tiny_model, command_environment) -> Checkout:
    """A checkout without results."""
    folder = tmp_path_factory.mktemp("unmeasured")
    config = {"model": str(tiny_model), "datasets": {"demo": {}}, "batch_size": 4}
    return make_checkout(root, folder, config, command_environment)


def profile(root: Path, name: str) -> dict:
    return yaml.safe_load((root / f"profiles/{name}/profile.v9+.yaml").read_text())


def resources_of(output: str, rule: str) -> str:
    (line,) = re.findall(rf"^rule {rule}:\n(?: +\S.*\n)*? +resources: (.*)$", output, re.M)
    return line


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_is_asked_for_a_gpu_where_something_is_measured(unmeasured, name):
    output = unmeasured.snakemake("-n", "--workflow-profile", f"profiles/{name}")
    for rule in ("profile", "termination", "online"):
        asked = resources_of(output, rule)
        assert re.search(r"\bgpu=1\b", asked), asked
        assert "mem_mb=64000" in asked
        assert "runtime=120" in asked
    for rule in ("prompts", "threshold", "aggregate"):
        asked = resources_of(output, rule)
        assert not re.search(r"\bgpu=1\b", asked), asked
        assert "runtime=" in asked


@pytest.mark.slow
def test_as_many_gpus_as_the_model_is_spread_over(unmeasured):
    arguments = ["-n", "--workflow-profile", "profiles/slurm", "--config"]
    output = unmeasured.snakemake(*arguments, "tensor_parallel_size=4")
    assert re.search(r"\bgpu=4\b", resources_of(output, "profile"))
    output = unmeasured.snakemake(*arguments, "engine={device: cpu}")
    assert re.search(r"\bgpu=0\b", resources_of(output, "profile"))


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_measured_stage_is_named_and_what_to_edit_is_marked(root, name):
    wanted = profile(root, name)
    assert set(wanted["set-resources"]) >= MEASURED
    assert "EDIT" in (root / f"profiles/{name}/profile.v9+.yaml").read_text()
    # A limit of one measured job at a time would leave all devices but one idle.
    assert "resources" not in wanted


FAKE_KUBECTL = """#!/usr/bin/env bash
if [ "$1" = create ]; then cat >manifest.yaml; echo job.batch/pdswitch-x1; fi
if [ "$1" = get ]; then [ "$ANSWER" = down ] && exit 1; echo "$ANSWER"; fi
"""


@pytest.fixture
def kubectl(tmp_path) -> dict[str, str]:
    """An environment with a kubectl that notes what it is given and answers what it is told."""
    (tmp_path / "kubectl").write_text(FAKE_KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_a_pod_gets_what_the_job_asks_for(root, tmp_path, kubectl):
    submit = root / "profiles/kubernetes/submit.sh"
    run = subprocess.run(
        [submit, "8", "64000", "2", "120", "/pdswitch/.snakemake/job.sh"],
        cwd=tmp_path,
        env=kubectl,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "job.batch/pdswitch-x1\n"
    job = yaml.safe_load((tmp_path / "manifest.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["activeDeadlineSeconds"] == 7200
    assert container["command"] == ["bash", "/pdswitch/.snakemake/job.sh"]
    assert container["workingDir"] == str(tmp_path)
    assert container["resources"]["limits"] == {
        "cpu": "8",
        "memory": "64000M",
        "nvidia.com/gpu": "2",
    }


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("pdswitch-x1:", "running"),
        ("pdswitch-x1:SuccessCriteriaMet Complete ", "success"),
        ("pdswitch-x1:FailureTarget Failed ", "failed"),
        ("", "failed"),
        ("down", "running"),
    ],
)
def test_the_state_of_a_pod(root, kubectl, answer, status):
    run = subprocess.run(
        [root / "profiles/kubernetes/status.sh", "job.batch/pdswitch-x1"],
        env=kubectl | {"ANSWER": answer},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == status
