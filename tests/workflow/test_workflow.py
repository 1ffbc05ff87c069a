"""The whole workflow on real vLLM with a tiny model: to the end, again, and after edits."""

import json
import shutil
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest

from checkout import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def finished(finished_workflow, tmp_path_factory) -> Checkout:
    """A copy of the finished workflow, elsewhere."""
    return finished_workflow.copy_to(tmp_path_factory.mktemp("checkout"))


def test_it_runs_to_the_end_with_one_engine(finished):
    assert (finished.folder / "results/report.html").stat().st_size > 100_000
    assert len(list((finished.folder / "logs/engine").iterdir())) == 1
    results = json.loads((finished.cell("demo") / "demo_results.json").read_text())
    assert results["k_star"] in range(1, 5)
    assert {"1", "4"} <= set(results["throughput_by_k"])
    assert results["rejected"] == []
    assert results["verdict"]["n_blocks"] == 2
    assert 0 <= results["verdict"]["regret_low"] <= results["verdict"]["regret"]
    assert results["prediction"]["sealed"]


def test_every_file_of_the_reference_is_there(finished):
    figures = (
        "throughput_vs_k",
        "profiling_results",
        "input_length_distribution",
        "output_length_distribution",
        "online_kstar_convergence",
    )
    for figure in figures:
        for ending in ("pdf", "png"):
            assert (finished.cell("demo") / f"demo_{figure}.{ending}").stat().st_size > 5000
    for name in ("demo_results", "truncated_samples_demo", "pd_timeline_demo"):
        json.loads((finished.cell("demo") / f"{name}.json").read_text())


def test_every_run_did_the_same_work(finished):
    runs = pd.read_parquet(finished.folder / "results/runs.parquet")
    sweep = runs[(runs["policy"] != "adaptive") & (runs["dataset"] == "demo")]
    assert len(sweep) == 2 * (len(set(sweep["threshold"].dropna())) + 1)
    tokens = {
        json.loads(path.read_text())["output_tokens"]
        for path in finished.cell("demo").glob("throughput/*/*/run.json")
    }
    assert len(tokens) == 1


def test_blocks_run_in_order(finished):
    runs = pd.read_parquet(finished.folder / "results/runs.parquet").dropna(subset="rep")
    for _, blocks in runs.sort_values("started_at").groupby("dataset")["rep"]:
        assert blocks.is_monotonic_increasing


def engines(checkout: Checkout) -> list[psutil.Process]:
    """The processes that serve this test session's workflows."""
    runtime = checkout.environment["PDSWITCH_RUNTIME_DIR"]
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(runtime in word for word in process.info["cmdline"] or [])
    ]


def wait_until_engines_left(checkout: Checkout) -> None:
    deadline = time.monotonic() + 20
    while left := engines(checkout):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.5)


def test_no_engine_stays_behind(finished):
    wait_until_engines_left(finished)


def test_a_deleted_run_is_put_back_and_nothing_else_is_touched(finished):
    folder = finished.cell("demo") / "throughput/threshold=4/rep=2"
    other = folder.parent / "rep=1/run.json"
    before = other.stat().st_mtime_ns
    measured = (folder / "run.json").read_bytes()
    shutil.rmtree(folder)
    planned = finished.planned()
    assert planned.pop("throughput") == 1
    assert set(planned) == {"aggregate", "summary", "report", "figures"}
    finished.snakemake()
    assert (folder / "run.json").read_bytes() == measured
    assert other.stat().st_mtime_ns == before
    assert finished.planned() == {}


def test_engine_killed_in_mid_run_is_retried_and_the_log_says_why(finished):
    wait_until_engines_left(finished)
    run = finished.cell("demo") / "throughput/threshold=1/rep=1/run.json"
    forced = ["--forcerun", str(run.relative_to(finished.folder))]
    process = subprocess.Popen(
        ["snakemake", "--cores", "2", "--configfile", "test.yaml", *forced],
        cwd=finished.folder,
        env=finished.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = finished.folder / "logs"
    killed = False
    deadline = time.monotonic() + 300
    while not killed and time.monotonic() < deadline and process.poll() is None:
        for candidate in engines(finished):
            candidate.send_signal(signal.SIGKILL)
            killed = True
        time.sleep(0.2)
    output, _ = process.communicate(timeout=400)
    assert killed
    assert "the engine died" in output
    assert process.returncode == 0, output[-4000:]
    assert log.is_dir()
    assert finished.planned() == {}
