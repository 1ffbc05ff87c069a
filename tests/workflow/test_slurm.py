"""A small workflow on a real Slurm: cut off twice, then finished with nothing measured twice."""

import json
import os
import subprocess

import psutil
import pytest

from checkout import Checkout, make_checkout
from cluster import Cluster, jobs, slurm, wait_for

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        "PDSWITCH_TEST_SLURM" not in os.environ, reason="started by tests/slurm/run.sh alone"
    ),
]

WORKFLOW_TIMEOUT_S = 280


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, root, tiny_model, command_environment) -> Cluster:
    """A checkout without results, and a profile for the Slurm of these tests."""
    config = {
        "model": str(tiny_model),
        "datasets": {"demo": {}},
        "shards": 2,
        "repeats": 2,
        "num_requests": 24,
        "batch_size": 4,
        "max_input_tokens": 300,
        "max_output_tokens": 24,
        "kstar_update_interval": 8,
        "offline_p_multiplier": 1.0,
        "k_grid": [1, 4],
        "num_prefill_samples": 6,
        "num_decode_repeats": 2,
        "sampling": {"temperature": 1.0},
        "engine": {"dtype": "float32"},
    }
    folder = tmp_path_factory.mktemp("cluster")
    return Cluster(make_checkout(root, folder, config, command_environment))


def shard_jobs() -> dict[str, str]:
    """The numbers of the shards' jobs that have not ended, by shard."""
    return {
        comment.partition("shard=")[2][0]: number
        for number, (_, comment) in jobs().items()
        if "shard=" in comment
    }


@pytest.fixture(scope="module")
def cut_off(cluster) -> set[bytes]:
    """What had been measured when one shard's job was cancelled: runs by their content."""
    workflow = cluster.start()
    try:
        wait_for(
            lambda: workflow.poll() is not None or cluster.kept(),
            "finished run",
            WORKFLOW_TIMEOUT_S,
        )
        assert workflow.poll() is None, cluster.output()
        # A shard that has finished a run and has not ended.
        first = json.loads(next(iter(cluster.kept())))
        victim = shard_jobs()[str((first["rep"] - 1) % 2 + 1)]
        slurm("scancel", victim)
        assert workflow.wait(timeout=WORKFLOW_TIMEOUT_S) == 1, cluster.output()
    finally:
        end(workflow)
    return cluster.kept()


@pytest.fixture(scope="module")
def finished(cluster, cut_off) -> Checkout:
    """The same command again, with the node drained at first."""
    wait_for(lambda: not jobs(), "end of the jobs", 30)
    slurm("scontrol", "update", "nodename=node", "state=drain", "reason=test")
    workflow = cluster.start()
    try:
        wait_for(lambda: workflow.poll() is not None or jobs(), "submitted job", 60)
        assert {state for state, _ in jobs().values()} == {"PENDING"}, cluster.output()
        slurm("scontrol", "update", "nodename=node", "state=resume")
        assert workflow.wait(timeout=WORKFLOW_TIMEOUT_S) == 0, cluster.output()
    finally:
        end(workflow)
    return cluster.checkout


def end(workflow: subprocess.Popen) -> None:
    """End a workflow that a failed test left behind, and its jobs."""
    if workflow.poll() is None:
        workflow.kill()
        workflow.wait()
        slurm("scancel", "--user=root")


def test_nothing_is_measured_twice(cluster, cut_off, finished):
    measured = cluster.measured()
    assert cut_off <= measured
    assert len(measured) > len(cut_off) > 0


def test_all_results_are_there_and_there_is_nothing_left_to_do(finished):
    results = json.loads((finished.cell("demo") / "demo_results.json").read_text())
    assert results["rejected"] == []
    assert results["verdict"]["n_blocks"] == 2
    assert (finished.folder / "results/report.html").stat().st_size > 100_000
    assert finished.planned() == {}
    assert finished.planned("--workflow-profile", "cluster") == {}


def test_other_shards_measure_nothing_again(finished):
    # The report prints the config.
    assert finished.planned("--config", "shards=1") == {"report": 1}


def test_a_shard_s_runs_share_one_engine(finished):
    # Profile, termination and online run, a shard each, and the one that was cancelled again.
    assert len(list((finished.folder / "logs/engine").iterdir())) == 6


def test_no_engine_and_no_job_is_left(finished):
    runtime = finished.environment["PDSWITCH_RUNTIME_DIR"]

    def engines() -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(runtime in word for word in process.info["cmdline"] or [])
        ]

    wait_for(lambda: not engines(), "end of the engines", 20)
    assert jobs() == {}
