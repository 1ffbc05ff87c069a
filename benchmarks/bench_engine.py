"""What the warm engine costs beside the tokens: a sweep of 12 runs on a tiny model, on the CPU.

    python benchmarks/bench_engine.py                     12 jobs, one after the other, one engine
    python benchmarks/bench_engine.py --results results   where a finished workflow's time went

Every part prints what it measured beside its target. It exits with 0 whatever the figures are: a
loaded machine is no failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import msgspec
import pandas as pd

from pdswitch.files import read_json, write_json, write_parquet
from pdswitch.model import describe_model
from tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[1]
THRESHOLDS = (1, 2, 3, 4, 6, 8)
REPEATS = 2
N_SLOTS = 8
REQUESTS = 24
TOKENS = 40


def sweep(folder: Path) -> None:
    """Run the sweep's own command once per threshold and repeat, as the workflow does."""
    write_inputs(folder)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "workflow"),
        # Short enough for the path of a socket.
        "PDSWITCH_RUNTIME_DIR": str(folder / "run"),
    }
    engine = {
        "n_slots": N_SLOTS,
        "max_input_tokens": 100,
        "max_output_tokens": 100,
        "device": "cpu",
        "dtype": "float32",
    }
    overheads, own, pids, says_ready = [], [], set(), 0
    for repeat in range(1, REPEATS + 1):
        for threshold in THRESHOLDS:
            output = folder / f"threshold={threshold}/rep={repeat}"
            command = [
                *(sys.executable, str(ROOT / "workflow/scripts/throughput.py")),
                *("--model", "model.json", "--engine", json.dumps(engine)),
                *("--idle-timeout-s", "5", "--prompts", "prompts.parquet"),
                *("--natural-lengths", "lengths.parquet", "--max-output-tokens", "100"),
                *("--threshold", str(threshold), "--rep", str(repeat), "--output", str(output)),
            ]
            started = time.perf_counter()
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            elapsed = time.perf_counter() - started
            if done.returncode:
                sys.exit(done.stderr)
            facts = read_json(output / "run.json")
            pids.add(facts["engine"]["pid"])
            if "ready after" in done.stderr:
                says_ready += 1  # this job waited for the load: not a warm one
            else:
                overheads.append(elapsed - facts["wall_s"])
                own.append(facts["wall_s"])
    print(f"a sweep of {len(THRESHOLDS) * REPEATS} runs of {REQUESTS} requests on {N_SLOTS} slots")
    report("engine loads", says_ready, "1", "d")
    report("engine processes", len(pids), "1", "d")
    report("seconds a run takes on the engine", pd.Series(own).median(), "-")
    report("seconds of a job beyond that, median", pd.Series(overheads).median(), "≤ 0.5")
    report("seconds of a job beyond that, worst", max(overheads), "-")
    report("of it, seconds to start Python and import", import_time(environment), "-")


def write_inputs(folder: Path) -> None:
    """Write what a job reads: the model and its manifest, prompts and lengths."""
    model = str(write_tiny_model(folder / "model"))
    write_json(folder / "model.json", msgspec.to_builtins(describe_model(model, model, None)))
    names = [f"r{i}" for i in range(REQUESTS)]
    prompts = {"request_id": names, "prompt_token_ids": [[i + 1] * 30 for i in range(REQUESTS)]}
    lengths = {"request_id": names, "output_tokens": [TOKENS] * REQUESTS}
    write_parquet(folder / "prompts.parquet", pd.DataFrame(prompts))
    write_parquet(folder / "lengths.parquet", pd.DataFrame(lengths))


def import_time(environment: dict[str, str]) -> float:
    """Return the median time of a job that only prints its help, s."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / "workflow/scripts/throughput.py"), "--help"],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append(time.perf_counter() - started)
    return float(pd.Series(times).median())


def share(results: Path) -> None:
    """Print the share of a workflow's wall time in which its engine generated tokens."""
    runs = [read_json(path) for path in results.glob("**/run.json")]
    engines = {run["engine"]["pid"]: run["engine"]["load_s"] for run in runs}
    # The profile's run.json stands for many runs, whose steps are beside it.
    generating = {"runs": sum(run["wall_s"] for run in runs if "wall_s" in run)}
    generating["profile"] = sum(
        pd.read_parquet(path)["duration_s"].sum()
        for path in results.glob("*/profile/N=*/steps.parquet")
    )
    wall = wall_time(results.parent / ".snakemake")
    total = sum(generating.values())
    print(f"{results}: {len(runs)} results with a run.json, {len(engines)} engine loads")
    report("seconds from the start of snakemake to its end", wall, "-")
    report("seconds generating in runs", generating["runs"], "-")
    report("seconds generating in the profile", generating["profile"], "-")
    report("seconds loading engines", sum(engines.values()), "-")
    report("per cent of the wall time spent generating", 100 * total / wall, "≥ 60")
    for rule, seconds in job_times(results.parent / ".snakemake").most_common():
        print(f"      {rule:54} {seconds:8.1f} s in jobs")


def wall_time(folder: Path) -> float:
    """Return how long the invocations of snakemake that finished a job took together, s.

    A log's name is the time it was begun, and it was last written to at the end.
    """
    total = 0.0
    for log in (folder / "log").glob("*.snakemake.log"):
        if "Finished job" in log.read_text(encoding="utf-8", errors="replace"):
            begun = datetime.strptime(log.name.partition(".")[0], "%Y-%m-%dT%H%M%S")
            total += log.stat().st_mtime - begun.timestamp()
    return total


def job_times(folder: Path) -> Counter[str]:
    """Return the seconds that the jobs of each rule took, by Snakemake's own record."""
    starts: dict[tuple[str, float], float] = {}
    for path in (folder / "metadata").rglob("*"):
        if path.is_file():
            record = read_json(path)
            # A job with several outputs has as many records, which agree in its end.
            starts[record["rule"], record["endtime"]] = record["starttime"]
    times: Counter[str] = Counter()
    for (rule, end), start in starts.items():
        times[rule] += end - start
    return times


def report(what: str, measured: float, target: str, form: str = ",.2f") -> None:
    """Print a measurement beside its target."""
    print(f"  {what:58} {measured:8{form}}  target {target}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, help="a finished workflow's results folder")
    arguments = parser.parse_args()
    if arguments.results is not None:
        share(arguments.results.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="pds-") as folder:
        sweep(Path(folder))


if __name__ == "__main__":
    main()
