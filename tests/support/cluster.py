"""A Slurm that a test may use: its jobs, its node, and a profile made for it."""

import os
import subprocess
import time
from collections.abc import Callable

import yaml

from checkout import Checkout
from pdswitch.stages.store import read_entry

COMMAND_TIMEOUT_S = 20


def slurm(*command: str) -> str:
    """Run one of Slurm's commands, which would else wait without end for one that is down."""
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True
    )
    return run.stdout


def jobs() -> dict[str, tuple[str, str]]:
    """The jobs that have not ended: state and comment by number."""
    lines = slurm("squeue", "--noheader", "--format=%i|%T|%k").splitlines()
    return {number: (state, comment) for number, state, comment in (x.split("|") for x in lines)}


def wait_for(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    """Wait until something is the case."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s; jobs: {jobs()}"
        time.sleep(0.2)


class Cluster:
    """The workflow of a checkout, run through the Slurm profile."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        folder = checkout.folder
        profile = yaml.safe_load((folder / "profiles/slurm/profile.v9+.yaml").read_text())
        # What a user edits: this node is small, and the jobs are short.
        profile |= {"jobs": 4, "cores": 2, "retries": 0, "latency-wait": 5}
        profile["slurm-init-seconds-before-status-checks"] = 2
        profile["default-resources"] = ["slurm_partition=cpu", "mem_mb=500", "runtime=5"]
        for resources in profile["set-resources"].values():
            resources |= {"mem_mb": 2000, "runtime": 3}
        (folder / "cluster").mkdir()
        (folder / "cluster/profile.yaml").write_text(yaml.safe_dump(profile))

    def start(self) -> subprocess.Popen:
        """Start the workflow; its output goes to a file."""
        with (self.checkout.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                ["snakemake", "--configfile", "test.yaml", "--workflow-profile", "cluster"],
                cwd=self.checkout.folder,
                env=self.checkout.environment | {"SLURM_CONF": os.environ["SLURM_CONF"]},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """The end of what the workflow printed."""
        return (self.checkout.folder / "output.txt").read_text()[-6000:]

    def kept(self) -> set[bytes]:
        """What runs of the sweep that are in the store have measured."""
        # Not those that are being put there, whose names begin with a dot.
        found = self.checkout.folder.glob("measured/[0-9a-f]*.kept")
        entries = map(read_entry, found)
        return {e.files["run.json"] for e in entries if e.dependencies["stage"] == "throughput"}

    def measured(self) -> set[bytes]:
        """What the runs among the results have measured."""
        found = self.checkout.folder.glob("results/*/*/*/throughput/*/*/run.json")
        return {path.read_bytes() for path in found}
