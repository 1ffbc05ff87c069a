"""How the workflow grows: ``python benchmarks/bench_scale.py [--json]``, about three minutes.

Six datasets on three models with 60 thresholds and 5 repeats are 5,400 measured jobs; a tenth of
them, two datasets on one model with 54 thresholds, shows the growth. Records are simulated, and
what would be measured is copied, so that the workflow's own time remains. It exits with 0 whatever
the figures are: a loaded machine is no failure.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

from checkout import make_checkout
from pdswitch.files import write_json, write_parquet
from synthetic import history_of
from synthetic_runs import (
    profile_of,
    records_of,
    termination_of,
    termination_requests,
    theory_of,
    workload,
    write_run,
)

ROOT = Path(__file__).resolve().parents[1]
N_SLOTS = 64
REQUESTS = 200
TIMED_JOBS = 100
K_STAR = 12


class Size(NamedTuple):
    models: int
    datasets: int
    thresholds: int
    repeats: int

    @property
    def jobs(self) -> int:
        return self.models * self.datasets * self.thresholds * self.repeats


SIZES = (Size(1, 2, 54, 5), Size(3, 6, 60, 5))

TARGETS = {
    "dry run, s": 30,
    "dry run, GB": 1.5,
    "dry run with all measured, s": 30,
    "between two measured jobs, s": 1,
    "one dataset judged and drawn, s": 60,
}
SNAKEMAKE = ["snakemake", "--quiet", "all", "--cores", "2", "--configfile", "test.yaml"]

# In place of python3: what would be measured is copied, and the clock read; the rest is run.
STAND_IN = """#!/bin/bash
[[ "$1" == *throughput.py ]] || exec {python} "$@"
[ "$(wc -l < {clock})" -lt {jobs} ] || exit 1
echo $EPOCHREALTIME >> {clock}
while [ "$1" != --output ]; do shift; done
mkdir -p "$2"
cp {run}/*.* "$2"
"""


class Sweep:
    """A copy of the project with made-up results of everything before the sweep."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.size = size
        self.folder = folder
        self.grid = list(range(1, size.thresholds + 1))
        models = [f"m{i}" for i in range(size.models)]
        datasets = {f"d{i}": {"kind": "demo"} for i in range(size.datasets)}
        config = {
            "models": models,
            "datasets": datasets,
            "num_requests": REQUESTS,
            "batch_size": N_SLOTS,
            "k_grid": self.grid,
            "repeats": size.repeats,
        }
        folder.mkdir()
        make_checkout(ROOT, folder, config, {})
        self.models = [folder / "results" / name for name in models]
        self.cells = [
            model / name / f"N={N_SLOTS}" for model, name in product(self.models, datasets)
        ]

    def prepare(self) -> None:
        """Write what the stages before the sweep leave."""
        served = termination_requests(REQUESTS + 64)
        termination = termination_of(served)
        theory = theory_of(termination, N_SLOTS)
        for model in self.models:
            manifest = {"name": model.name, "architecture": "made up", "digest": ""}
            write_json(model / "model.json", manifest)
            (model / "checkpoint").mkdir()
        for cell in self.cells:
            prompts = served[["request_id", "prompt_tokens"]].assign(prompt="why?")
            write_parquet(cell.parent / "prompts.parquet", prompts)
            write_json(
                cell.parent / "prompts.json", {"rows": len(served), "sha256": "", "skipped": {}}
            )
        for model in self.models:
            profile = model / f"profile/N={N_SLOTS}"
            write_parquet(profile / "steps.parquet", profile_of(n_slots=N_SLOTS))
            write_json(profile / "run.json", {})
            write_json(profile / "fit.json", theory["timing"])
        for cell in self.cells:
            write_parquet(cell / "termination/requests.parquet", served)
            write_json(cell / "termination/run.json", {})
            write_json(cell / "termination/termination.json", termination)
        for cell in self.cells:
            write_json(cell / "threshold.json", theory)
        for cell in self.cells:
            write_json(cell / "adaptive_policy.json", {"threshold": K_STAR})
        steps, requests, facts = records_of(workload(REQUESTS), K_STAR, n_slots=N_SLOTS)
        for cell in self.cells:
            write_run(cell / "online", steps, requests, facts | {"policy": "adaptive"})
            write_parquet(cell / "online/kstar_history.parquet", history_of(N_SLOTS, K_STAR))

    def finish(self) -> None:
        """Write every run of the sweep."""
        drift = np.random.default_rng(0).lognormal(0, 0.01, self.size.repeats)
        first, *others = self.cells
        requests = workload(REQUESTS)
        for k in [*self.grid, None]:
            policy = "policy=mixed" if k is None else f"threshold={k}"
            for rep, slower in enumerate(drift, start=1):
                steps, served, facts = records_of(requests, k, slower, n_slots=N_SLOTS)
                run = f"throughput/{policy}/rep={rep}"
                write_run(first / run, steps, served, facts | {"rep": rep})
        for cell in others:
            shutil.copytree(first / "throughput", cell / "throughput")

    def dry_run(self) -> tuple[float, float]:
        """Return the seconds and the gigabytes of a dry run."""
        began = time.monotonic()
        script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        command = [sys.executable, "-c", script, *SNAKEMAKE, "-n"]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        return time.monotonic() - began, int(done.stdout.split()[-1]) / 1e6

    def seconds_per_job(self) -> float:
        """Return the time from one job of the sweep to the next, with nothing to measure in it."""
        tools, run, clock = (self.folder / name for name in ("tools", "run", "clock"))
        tools.mkdir()
        clock.touch()
        steps, requests, facts = records_of(workload(REQUESTS), K_STAR, n_slots=N_SLOTS)
        write_run(run, steps, requests, facts | {"rep": 1})
        script = STAND_IN.format(python=sys.executable, clock=clock, run=run, jobs=TIMED_JOBS)
        (tools / "python3").write_text(script)
        (tools / "python3").chmod(0o755)
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        # It ends when the stand-in refuses the next job.
        subprocess.run(
            [*SNAKEMAKE, "--retries", "0"],
            cwd=self.folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            check=False,
        )
        times = [float(line) for line in clock.read_text().split()]
        for cell in self.cells:
            shutil.rmtree(cell / "throughput", ignore_errors=True)
        return (times[-1] - times[0]) / (len(times) - 1)

    def judge_and_draw(self) -> float:
        """Return the seconds from the runs of one dataset to its results and figures."""
        cell = self.cells[0].relative_to(self.folder)
        name = cell.parts[-2]
        drawn = ("throughput_vs_k", "profiling_results", "input_length_distribution", "hazard")
        drawn += ("output_length_distribution", "online_kstar_convergence", "timeline")
        began = time.monotonic()
        files = [str(cell / f"{name}_{figure}.pdf") for figure in drawn]
        subprocess.run(
            [SNAKEMAKE[0], *files, *SNAKEMAKE[1:]],
            cwd=self.folder,
            capture_output=True,
            check=True,
        )
        return time.monotonic() - began


def measure(size: Size, folder: Path) -> dict[str, float]:
    """Return every figure of a size by its name in `TARGETS`."""
    sweep = Sweep(folder, size)
    sweep.prepare()
    seconds, gigabytes = sweep.dry_run()
    found = {"dry run, s": seconds, "dry run, GB": gigabytes}
    found["between two measured jobs, s"] = sweep.seconds_per_job()
    sweep.finish()
    found["dry run with all measured, s"] = sweep.dry_run()[0]
    found["one dataset judged and drawn, s"] = sweep.judge_and_draw()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {size.jobs: measure(size, Path(folder) / str(size.jobs)) for size in SIZES}
    if arguments.json:
        print(json.dumps({"targets": TARGETS, "measured_jobs": found}, indent=2))
        return
    small, large = found
    print(f"{'measured jobs':34} {small:>8,} {large:>8,} {'target':>8}")
    for name, target in TARGETS.items():
        print(f"{name:34} {found[small][name]:8.2f} {found[large][name]:8.2f} {target:>8}")


if __name__ == "__main__":
    main()
