"""The whole workflow on real vLLM with a tiny model: to the end, again, and after edits."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARTS = ("Snakefile", "workflow", "profiles", "config", "envs")


class Checkout:
    """A copy of the project that a test may edit and run."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def snakemake(self, *arguments: str, expect: int = 0) -> str:
        """Run snakemake here and return what it printed."""
        run = subprocess.run(
            ["snakemake", "--cores", "2", "--configfile", "test.yaml", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=800,
        )
        output = run.stdout + run.stderr
        assert run.returncode == expect, output[-6000:]
        return output

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a run would start, the figures' rules as one."""
        output = self.snakemake("-n", "--quiet", "rules", *arguments)
        counts: Counter[str] = Counter()
        # The table comes twice, before and after the reasons.
        table = output.partition("Job stats:")[2].partition("total")[0]
        for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE):
            if rule != "all":
                counts["figure" if rule.startswith("figure_") else rule] += int(count)
        return dict(counts)

    @property
    def cell(self) -> Path:
        """Folder of the one dataset."""
        (model,) = (p.parent.name for p in self.folder.glob("results/*/demo"))
        return self.folder / "results" / model / "demo/N=4"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, root, tiny_model, command_environment) -> Checkout:
    folder = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        source = root / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part)
    config = {
        "model": str(tiny_model),
        "datasets": ["demo"],
        "num_requests": 24,
        "batch_size": 4,
        "max_input_tokens": 300,
        "max_output_tokens": 24,
        "kstar_update_interval": 8,
        "offline_p_multiplier": 1.0,
        "repeats": 2,
        "k_grid": [1, 4],
        "num_prefill_samples": 6,
        "num_decode_repeats": 2,
        "lengths": "replay",
        "sampling": {"temperature": 1.0},
        "engine": {"dtype": "float32"},
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(config))
    return Checkout(folder, command_environment)


@pytest.fixture(scope="module")
def finished(checkout) -> Checkout:
    """The workflow, run to its end once."""
    checkout.output = checkout.snakemake()
    return checkout


def test_it_runs_to_the_end_with_one_engine(finished):
    assert (finished.folder / "results/report.html").stat().st_size > 100_000
    assert len(list((finished.folder / "logs/engine").iterdir())) == 1
    results = json.loads((finished.cell / "demo_results.json").read_text())
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
            assert (finished.cell / f"demo_{figure}.{ending}").stat().st_size > 5000
    for name in ("demo_results", "truncated_samples_demo", "pd_timeline_demo"):
        json.loads((finished.cell / f"{name}.json").read_text())


def test_every_run_did_the_same_work(finished):
    runs = pd.read_parquet(finished.folder / "results/runs.parquet")
    sweep = runs[runs["policy"] != "adaptive"]
    assert len(sweep) == 2 * (len(set(sweep["threshold"].dropna())) + 1)
    tokens = {
        json.loads(path.read_text())["output_tokens"]
        for path in finished.cell.glob("throughput/*/*/run.json")
    }
    assert len(tokens) == 1


def test_blocks_run_in_order(finished):
    runs = pd.read_parquet(finished.folder / "results/runs.parquet").dropna(subset="rep")
    runs = runs.sort_values("started_at")
    assert list(runs["rep"]) == sorted(runs["rep"])


def test_no_engine_stays_behind(finished):
    deadline = time.monotonic() + 20
    runtime = finished.environment["PDSWITCH_RUNTIME_DIR"]
    while time.monotonic() < deadline:
        left = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(runtime in word for word in process.info["cmdline"] or [])
        ]
        if not left:
            return
        time.sleep(0.5)
    pytest.fail(f"still running: {left}")


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.planned() == {}


def test_touching_everything_reruns_nothing(finished):
    for path in finished.folder.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts and "results" not in path.parts:
            os.utime(path)
    assert finished.planned() == {}


def test_a_deleted_run_is_measured_again_and_nothing_else(finished):
    folder = finished.cell / "throughput/threshold=4/rep=2"
    kept = folder.parent / "rep=1/run.json"
    before = kept.stat().st_mtime_ns
    shutil.rmtree(folder)
    planned = finished.planned()
    assert planned.pop("throughput") == 1
    assert set(planned) == {"aggregate", "summary", "report", "figure"}
    finished.snakemake()
    assert (folder / "run.json").is_file()
    assert kept.stat().st_mtime_ns == before
    assert finished.planned() == {}


@pytest.mark.parametrize(
    ("module", "rerun"),
    [
        ("workflow/pdswitch/report.py", {"report"}),
        ("workflow/pdswitch/figures/hazard.py", {"figure", "report"}),
        ("workflow/pdswitch/metrics.py", {"aggregate", "summary", "figure", "report"}),
        (
            "workflow/pdswitch/grid.py",
            {"threshold", "online", "aggregate", "summary", "figure", "report"},
        ),
        (
            "workflow/pdswitch/scheduler.py",
            {
                "profile",
                "termination",
                "threshold",
                "online",
                "throughput",
                "throughput_mixed",
                "aggregate",
                "summary",
                "figure",
                "report",
            },
        ),
    ],
    ids=["report", "figure", "metrics", "theory", "scheduler"],
)
def test_an_edit_reruns_the_stages_that_import_it(finished, module, rerun):
    path = finished.folder / module
    original = path.read_text()
    path.write_text(original + "\n# edited\n")
    try:
        planned = set(finished.planned())
    finally:
        path.write_text(original)
    # Beyond the checkpoint snakemake cannot say yet which runs are needed.
    assert planned <= rerun
    assert rerun - planned <= {"throughput", "throughput_mixed"}
    assert finished.planned() == {}


def test_more_repeats_are_added_to_those_there(finished):
    planned = finished.planned("--config", "repeats=3")
    assert planned["throughput"] == len({*range(1, 5, 3), *_thresholds(finished)})
    assert planned["throughput_mixed"] == 1
    assert "profile" not in planned
    assert "termination" not in planned


def _thresholds(checkout: Checkout) -> list[int]:
    return json.loads((checkout.cell / "threshold.json").read_text())["k_grid"]


def test_other_slots_are_kept_beside(finished):
    planned = finished.planned("--config", "batch_size=3", "k_grid=[1]")
    assert planned["profile"] == 1
    assert "prompts" not in planned
    assert "model" not in planned


def test_engine_killed_in_mid_run_is_retried_and_the_log_says_why(finished):
    shutil.rmtree(finished.cell / "throughput/threshold=1/rep=1")
    process = subprocess.Popen(
        ["snakemake", "--cores", "2", "--configfile", "test.yaml"],
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
        for candidate in psutil.process_iter(["cmdline"]):
            words = candidate.info["cmdline"] or []
            mine = finished.environment["PDSWITCH_RUNTIME_DIR"]
            if "pdswitch.engine.host" in words and any(mine in word for word in words):
                candidate.send_signal(signal.SIGKILL)
                killed = True
        time.sleep(0.2)
    output, _ = process.communicate(timeout=400)
    assert killed
    assert "the engine died" in output
    assert process.returncode == 0, output[-4000:]
    assert log.is_dir()
    assert finished.planned() == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "batch_sizee=4"], "batch_sizee is not a known key; see docs/config.md"),
        (["--config", "batch_size=0"], "batch_size is 0"),
    ],
)
def test_a_wrong_config_stops_before_any_job(checkout, arguments, sentence):
    output = checkout.snakemake("-n", *arguments, expect=1)
    assert sentence in output
    assert "Traceback" not in output
