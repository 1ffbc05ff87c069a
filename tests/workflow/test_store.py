"""The workflow after mistakes and changes: what was measured is put back, and nothing else is done.

`PDSWITCH_MISTAKE_ROUNDS` says how many mistakes are made; `make faults` makes twenty.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from checkout import CONFIG_FILE, Checkout, make_checkout
from pdswitch.files import read_json

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("PDSWITCH_MISTAKE_ROUNDS", "2"))
ENGINE = {"dtype": "float32", "threads": 1}
CONFIG = {
    "datasets": ["demo"],
    "batch_size": 2,
    "k_grid": [1, 2],
    "num_requests": 8,
    "max_input_tokens": 300,
    "max_output_tokens": 16,
    "kstar_update_interval": 8,
    "offline_p_multiplier": 1.0,
    "repeats": 1,
    "num_prefill_samples": 4,
    "num_decode_repeats": 1,
    "engine": ENGINE,
}
# Up to the tables; figures and report measure nothing.
TARGET = "summary"
# Each is refused by another stage.
MISTAKES = [
    {"max_input_tokens": 3},  # prompts
    {"tensor_parallel_size": 2},  # profile
    {"lengths": "dataset"},  # termination
    {"num_requests": 100_000},  # prompts
    {"engine": ENGINE | {"max_model_len": 10**7}},  # profile
    {"sampling": {"temperature": 1.0}, "lengths": "dataset"},  # termination
]


class Kept:
    """A finished workflow, and what it had measured."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.results = checkout.folder / "results"
        self.first = self.files()
        self.tables = self.read_tables(self.results)

    def files(self, folder: str = "results") -> dict[str, bytes]:
        """The content of all that engines have measured, and of the sealed prediction."""
        root = self.checkout.folder / folder
        runs = [file for run in root.rglob("run.json") for file in run.parent.glob("*.[pj]*")]
        found = [file for file in runs if file.name not in ("fit.json", "termination.json")]
        found += root.rglob("threshold.json")
        return {str(file.relative_to(root)): file.read_bytes() for file in found}

    def engines(self) -> int:
        """How many engines were started so far."""
        return len(list((self.checkout.folder / "logs/engine").iterdir()))

    @staticmethod
    def read_tables(folder: Path) -> list[pd.DataFrame]:
        return [pd.read_parquet(folder / "runs.parquet"), pd.read_csv(folder / "summary.csv")]

    def assert_as_at_first(self, folder: str = "results") -> None:
        assert self.files(folder) == self.first
        found = self.read_tables(self.checkout.folder / folder)
        for table, expected in zip(found, self.tables, strict=True):
            pd.testing.assert_frame_equal(table, expected)


@pytest.fixture(scope="module")
def finished(root, tiny_model, tmp_path_factory, command_environment) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    runtime = tmp_path_factory.mktemp("kept-run")
    environment = command_environment | {"PDSWITCH_RUNTIME_DIR": str(runtime)}
    config = CONFIG | {"model": str(tiny_model)}
    checkout = make_checkout(root, folder, config, environment)
    checkout.snakemake(TARGET)
    return Kept(checkout)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_after_a_mistake_nothing_is_measured_twice(finished, turn):
    good = finished.checkout.config()
    finished.checkout.configure(**MISTAKES[turn % len(MISTAKES)])
    output = finished.checkout.snakemake(TARGET, expect=1)
    assert "error: " in output
    before = finished.engines()
    finished.checkout.configure_anew(good)
    finished.checkout.snakemake(TARGET)
    assert finished.engines() == before
    finished.assert_as_at_first()
    assert finished.checkout.planned_jobs(TARGET) == []


def test_an_option_changed_and_changed_back_measures_once(finished):
    good = finished.checkout.config()
    finished.checkout.configure(sampling={"temperature": 1.0}, num_requests=9)
    finished.checkout.snakemake(TARGET)
    changed = finished.files()
    assert changed.keys() == finished.first.keys()
    different = {name for name in changed if changed[name] != finished.first[name]}
    assert different == {name for name in changed if "/profile/" not in name}
    before = finished.engines()
    finished.checkout.configure_anew(good)
    finished.checkout.snakemake(TARGET)
    assert finished.engines() == before
    finished.assert_as_at_first()


def test_another_output_folder_gets_what_was_measured_while_the_device_is_in_use(finished):
    before = finished.engines()
    runtime = Path(finished.checkout.environment["PDSWITCH_RUNTIME_DIR"])
    with FileLock(runtime / "cpu/lock", timeout=5):
        finished.checkout.snakemake(TARGET, "--config", "output_dir=elsewhere")
    assert finished.engines() == before
    finished.assert_as_at_first("elsewhere")
    shutil.rmtree(finished.checkout.folder / "elsewhere")


def test_a_deleted_result_is_put_back_and_a_forced_one_is_measured_again(finished):
    checkout, before = finished.checkout, finished.engines()
    cell = checkout.cell("demo", 2)
    runs = [str(run.relative_to(checkout.folder)) for run in cell.glob("throughput/*/*/run.json")]
    (file,) = (run for run in runs if "threshold=1" in run)
    shutil.rmtree((checkout.folder / file).parent)
    checkout.snakemake(TARGET, *runs)
    finished.assert_as_at_first()
    assert finished.engines() == before
    (log,) = (checkout.folder / "logs").rglob("threshold=1-rep=1.log")
    assert "put back from measured" in log.read_text()
    # One by its file, then all of a rule.
    checkout.snakemake(TARGET, "--forcerun", file)
    once = finished.files()
    places = {name for name in once if once[name] != finished.first[name]}
    assert {Path(name).parent.parent.name for name in places} == {"threshold=1"}
    checkout.snakemake(TARGET, "--forcerun", "throughput")
    twice = finished.files()
    places = {name for name in twice if twice[name] != once[name]}
    assert {Path(name).parent.parent.name for name in places} == {"threshold=1", "threshold=2"}
    # The new ones are those that are put back from now on.
    shutil.rmtree(cell / "throughput")
    checkout.snakemake(TARGET, *runs)
    assert finished.files() == twice


def test_a_prediction_that_was_sealed_stays_sealed(finished):
    results = read_json(finished.checkout.cell("demo", 2) / "demo_results.json")
    assert results["prediction"]["sealed"]


def test_a_second_workflow_waits_for_the_first_and_each_loads_its_engine_once(
    root, tiny_model, tmp_path, command_environment
):
    (tmp_path / "run").mkdir()
    environment = command_environment | {"PDSWITCH_RUNTIME_DIR": str(tmp_path / "run")}
    checkouts, processes = [], []
    for number, name in enumerate(("one", "other")):
        (tmp_path / name).mkdir()
        config = CONFIG | {"model": str(tiny_model), "engine": ENGINE | {"seed": number}}
        checkouts.append(make_checkout(root, tmp_path / name, config, environment))
        command = ["snakemake", "thresholds", "--cores", "2", "--configfile", CONFIG_FILE]
        with (tmp_path / name / "output.txt").open("w") as output:
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=tmp_path / name,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    said = []
    try:
        codes = [process.wait(600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for checkout, code in zip(checkouts, codes, strict=True):
        said.append((checkout.folder / "output.txt").read_text())
        assert code == 0, said[-1][-3000:]
        assert len(list((checkout.folder / "logs/engine").iterdir())) == 1
    waited = [text for text in said if "waiting for the device: workflow" in text]
    assert len(waited) == 1
