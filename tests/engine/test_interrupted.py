"""An interrupted workflow leaves no engine, no job and no half result; the next one works."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from checkout import CONFIG_FILE, Checkout, make_checkout
from pdswitch.model import model_slug

pytestmark = [pytest.mark.rare, pytest.mark.timeout(600)]


class Interrupted:
    """A copy of the project whose profile stage takes some ten seconds."""

    def __init__(self, checkout: Checkout, model: Path) -> None:
        self.checkout = checkout
        self.folder = checkout.folder
        slug = model_slug(str(model))
        self.profile = self.folder / f"results/{slug}/profile/N=4"
        self.log = self.folder / f"logs/{slug}/profile/N=4.log"
        self.target = str((self.profile / "steps.parquet").relative_to(self.folder))

    def start(self) -> subprocess.Popen:
        """Start snakemake and return when the profile is being measured."""
        self.log.unlink(missing_ok=True)
        # A shell starts its background jobs, these tests perhaps among them, deaf to Ctrl-C.
        listening = ["env", "--default-signal=INT"]
        command = ["snakemake", "--cores", "2", "--configfile", CONFIG_FILE, "--", self.target]
        process = subprocess.Popen(
            [*listening, *command],
            cwd=self.folder,
            env=self.checkout.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 200
        while not (self.log.exists() and re.search(r"profile:.*\| [1-9]", self.log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the profile did not begin: {process.communicate()[0][-3000:]}")
            time.sleep(0.1)
        return process

    def left(self) -> list[str]:
        """Return the commands of the jobs and engines that still run."""
        runtime = self.checkout.environment["PDSWITCH_RUNTIME_DIR"]
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            try:
                words = process.info["cmdline"] or []
                ours = Path(process.cwd()) == self.folder or any(runtime in w for w in words)
            except psutil.Error:
                continue
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(" ".join(words)[:200])
        return found

    def await_nothing_left(self) -> None:
        deadline = time.monotonic() + 30
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert self.left() == []

    def results(self) -> set[str]:
        return {path.name for path in self.profile.glob("**/*") if path.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory, root, tiny_model, command_environment) -> Interrupted:
    config = {
        "model": str(tiny_model),
        "datasets": ["demo"],
        "batch_size": 4,
        "max_input_tokens": 300,
        "max_output_tokens": 24,
        "num_prefill_samples": 6,
        "num_decode_repeats": 40,
        "engine": {"dtype": "float32"},
    }
    folder = tmp_path_factory.mktemp("interrupted")
    # Engines of its own, so that none of another test's counts as left behind.
    environment = command_environment | {
        "PDSWITCH_RUNTIME_DIR": str(tmp_path_factory.mktemp("interrupted-run"))
    }
    return Interrupted(make_checkout(root, folder, config, environment), tiny_model)


def test_killed(project):
    process = project.start()
    process.kill()
    process.communicate()
    project.await_nothing_left()
    assert "its workflow has ended" in project.log.read_text()
    assert project.results() == set()
    # A lock of its own stays behind, as Snakemake says itself at the next start.
    project.checkout.snakemake("--unlock")


def test_interrupted_by_control_c(project):
    process = project.start()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert output.rstrip().endswith("to go on, run the same command again.")
    assert process.returncode != 0
    project.await_nothing_left()
    assert project.results() == set()


def test_terminated_it_finishes_the_running_job(project):
    process = project.start()
    process.terminate()
    process.communicate(timeout=200)
    project.await_nothing_left()
    assert project.results() == {"steps.parquet", "run.json"}
    assert "Nothing to be done" in project.checkout.snakemake("-n", "--", project.target)
