"""The workflow under SIGKILL at random moments, then the same command again.

`PDSWITCH_FAULT_ROUNDS` says how many seeded rounds are played; `make faults` plays fifty.
"""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import psutil
import pytest
from filelock import FileLock

from checkout import CONFIG_FILE, Checkout, make_checkout
from pdswitch.files import read_json

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("PDSWITCH_FAULT_ROUNDS", "1"))
VICTIMS = ("snakemake", "engine", "job")
# What a run does, whenever it does it: vLLM's core runs in step with the scheduler on the CPU.
DETERMINISTIC = ["prefill_tokens", "decode_requests", "admitted", "running", "waiting", "finished"]
CONFIG = {
    "datasets": {
        "synthetic": {
            "input_lengths": {"law": "geometric", "mean": 20},
            "output_lengths": {"law": "geometric", "mean": 12},
        }
    },
    # Every k is measured: which one the clock makes k* must not matter.
    "batch_size": 2,
    "k_grid": [1, 2],
    "num_requests": 24,
    "max_input_tokens": 100,
    "max_output_tokens": 60,
    "kstar_update_interval": 8,
    "offline_p_multiplier": 1.0,
    "repeats": 2,
    "num_prefill_samples": 6,
    "num_decode_repeats": 2,
    "engine": {"dtype": "float32"},
}


class Undisturbed(NamedTuple):
    checkout: Checkout
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(root, tiny_model, tmp_path_factory, command_environment) -> Undisturbed:
    """The workflow run to its end in peace, and how long that took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = CONFIG | {"model": str(tiny_model)}
    checkout = make_checkout(root, folder, config, command_environment)
    started = time.monotonic()
    checkout.snakemake()
    return Undisturbed(checkout, time.monotonic() - started)


class Disturbed:
    """A workflow of its own, with an engine of its own, one process of which is killed."""

    def __init__(self, folder: Path, root: Path, like: Checkout) -> None:
        self.runtime = folder / "run"
        self.runtime.mkdir(parents=True)
        environment = like.environment | {"PDSWITCH_RUNTIME_DIR": str(self.runtime)}
        (folder / "project").mkdir()
        self.checkout = make_checkout(root, folder / "project", like.config(), environment)
        self.folder = self.checkout.folder

    def kill_one(self, victim: str, after_s: float) -> str | None:
        """Run the workflow and kill the victim at the given moment; return what was printed.

        None if the workflow ended before.
        """
        with (self.folder / "first.log").open("w+") as log:
            workflow = subprocess.Popen(
                ["snakemake", "--cores", "2", "--configfile", CONFIG_FILE],
                cwd=self.folder,
                env=self.checkout.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            time.sleep(after_s)
            while not self._kill(victim, workflow.pid):
                if workflow.poll() is not None:
                    return None
                time.sleep(0.02)
            workflow.wait(600)
            log.seek(0)
            return log.read()

    def _kill(self, victim: str, workflow: int) -> bool:
        """Kill the victim if there is one at the moment."""
        if victim == "snakemake":
            if psutil.Process(workflow).status() == psutil.STATUS_ZOMBIE:
                return False  # it has ended by itself
            os.kill(workflow, signal.SIGKILL)
            return True
        word = "pdswitch.engine.host" if victim == "engine" else "workflow/scripts/"
        for process in self.processes():
            try:
                command = process.cmdline()
                if any("python" in part for part in command[:1]) and any(
                    part.startswith(word) for part in command[1:4]
                ):
                    process.kill()
                    return True
            except psutil.NoSuchProcess:
                continue  # ended while we looked
        return False

    def processes(self) -> list[psutil.Process]:
        """Return what runs in this workflow's folder or for its engine."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = Path(process.cwd()).is_relative_to(self.folder) or any(
                    str(self.runtime) in word for word in process.cmdline()
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE and process.cmdline():
                    found.append(process)
            except psutil.Error:
                continue  # ended while we looked
        return found

    def await_nothing_left(self) -> None:
        deadline = time.monotonic() + 60
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert [process.cmdline() for process in self.processes()] == []


def measured_jobs(log: str) -> tuple[set[str], set[str]]:
    """Return the measured jobs that were started, and those that were finished."""
    started = set(re.findall(r"^[\d:]+ start: (Measure .*) \(", log, re.MULTILINE))
    finished = set(re.findall(r"^[\d:]+ done in \d+ s: (Measure .*)$", log, re.MULTILINE))
    return started, finished


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_any_moment_the_same_command_ends_it_well(undisturbed, root, tmp_path, seed):
    chance = random.Random(seed)
    victim = VICTIMS[seed % len(VICTIMS)]
    moment = chance.uniform(0.1, 0.95) * undisturbed.seconds
    first = None
    while first is None:
        disturbed = Disturbed(tmp_path / f"{moment:.1f}s", root, undisturbed.checkout)
        first = disturbed.kill_one(victim, moment)
        disturbed.await_nothing_left()
        # The undisturbed one may have run on a busier machine, and this one have ended before.
        moment /= 2
    _, finished = measured_jobs(first)
    if victim == "snakemake":
        # Its own lock on the folder; Snakemake asks for this itself.
        disturbed.checkout.snakemake("--unlock")
    second, _ = measured_jobs(disturbed.checkout.snakemake())
    assert finished | second
    assert not finished & second
    assert disturbed.checkout.planned_jobs() == []
    disturbed.await_nothing_left()
    with FileLock(next(disturbed.runtime.glob("*/lock")), timeout=1):
        assert_equal_results(disturbed.checkout, undisturbed.checkout)


def assert_equal_results(found: Checkout, expected: Checkout) -> None:
    """Compare everything that does not depend on the clock."""
    files = [sorted(name(file, one) for file in results(one)) for one in (found, expected)]
    assert files[0] == files[1]
    cells = [checkout.cell("synthetic", 2) for checkout in (found, expected)]
    for place in ("termination/termination.json",):
        assert read_json(cells[0] / place) == read_json(cells[1] / place)
    for run in sorted(cells[1].glob("**/run.json")):
        pair = [cell / run.parent.relative_to(cells[1]) for cell in cells]
        columns = ["request_id", "prompt_tokens", "output_tokens", "finish_reason"]
        requests = [
            pd.read_parquet(folder / "requests.parquet", columns=columns)
            .sort_values("request_id")
            .reset_index(drop=True)
            for folder in pair
        ]
        pd.testing.assert_frame_equal(*requests)
        if run.parent.name.startswith("rep="):
            steps = [pd.read_parquet(f / "steps.parquet", columns=DETERMINISTIC) for f in pair]
            pd.testing.assert_frame_equal(*steps)
    for place in ("prompts.parquet",):
        pair = [pd.read_parquet(cell.parent / place) for cell in cells]
        pd.testing.assert_frame_equal(*pair)


def results(checkout: Checkout) -> list[Path]:
    """Every file of the results; one that was left half-written would have a name of its own."""
    return [path for path in (checkout.folder / "results").rglob("*") if path.is_file()]


def name(file: Path, checkout: Checkout) -> str:
    return str(file.relative_to(checkout.folder))
