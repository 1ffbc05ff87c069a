"""From folders of runs to the results: simulated runs, whose truth is known."""

import csv
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pdswitch.analysis.decomposition import SOURCES
from pdswitch.analysis.results import dataset_results, load_run, out_of_memory, run_rows
from pdswitch.files import read_json, write_json, write_parquet
from pdswitch.report.wording import headline, verdict_rows
from synthetic_runs import (
    QUIET,
    records_of,
    termination_of,
    termination_requests,
    theory_of,
    workload,
    write_run,
)

GRID = [1, 2, 3, 5, 8]
BLOCKS = [1, 2, 3]
SETTINGS = {
    "model": "toy",
    "tensor_parallel_size": 2,
    "num_requests": 120,
    "repeats": len(BLOCKS),
    "lengths": "replay",
    "exclude_degenerate_throughput": False,
}
HISTORY = pd.DataFrame(
    {"completions": [32], "time_s": [4.0], "termination_probability": [0.04], "threshold": [3]}
)


@pytest.fixture(scope="module")
def theory() -> dict[str, Any]:
    return theory_of(termination_of(termination_requests()))


@pytest.fixture
def cell(tmp_path: Path, theory: dict[str, Any]) -> Path:
    """A dataset's folder after its sweep."""
    return write_sweep(tmp_path, theory, SETTINGS["num_requests"])


def write_sweep(folder: Path, theory: dict[str, Any], count: int) -> Path:
    requests = workload(count)
    random = np.random.default_rng(0)
    for rep in BLOCKS:
        for k in [*sorted({*GRID, theory["k_star"]}), None]:
            steps, served, facts = records_of(requests, k, random.lognormal(0, 0.01))
            policy = "policy=mixed" if k is None else f"threshold={k}"
            write_run(
                folder / f"throughput/{policy}/rep={rep}", steps, served, facts | {"rep": rep}
            )
    steps, served, facts = records_of(requests, 3)
    adaptive = {key: value for key, value in facts.items() if key != "rep"}
    write_run(folder / "online", steps, served, adaptive | {"policy": "adaptive"})
    write_parquet(folder / "online/kstar_history.parquet", HISTORY)
    return folder


def run_files(cell: Path) -> list[Path]:
    return sorted((cell / "throughput").glob("*/*/run.json"))


def results_of(cell: Path, theory: dict[str, Any], blocks: list[int] = BLOCKS) -> dict[str, Any]:
    folders = [file.parent for file in run_files(cell)]
    runs = [
        load_run(folder, True, frozenset())
        for folder in folders
        if folder.name in {f"rep={rep}" for rep in blocks}
    ]
    online = load_run(cell / "online", True, frozenset())
    termination = termination_of(termination_requests())
    return dataset_results("toy", SETTINGS, theory, termination, runs, online, HISTORY)


def spoil(folder: Path) -> None:
    """Let a run have been preempted once."""
    steps = pd.read_parquet(folder / "steps.parquet")
    steps.loc[5, "preempted"] = 1
    write_parquet(folder / "steps.parquet", steps)


def test_the_best_k_is_the_one_the_simulator_has(cell, theory):
    results = results_of(cell, theory)
    requests = workload(SETTINGS["num_requests"])
    truth = {k: 120 / records_of(requests, k)[2]["wall_s"] for k in GRID}
    best = max(truth, key=truth.__getitem__)
    assert best in results["verdict"]["indifference_set"]
    assert 8 not in results["verdict"]["indifference_set"]
    for k in GRID:
        block = results["throughput_by_k"][str(k)]
        assert block["n"] == 3
        assert block["throughput"]["mean"] == pytest.approx(truth[k], rel=0.03)
    assert results["delta_k"] == results["k_hat"] - results["k_star"]
    star, hat = results["throughput_k_star"], results["throughput_k_hat"]
    assert results["throughput_gap_percent"] == pytest.approx(100 * (1 - star / hat))
    assert results["verdict"]["mixed_ratio"] == pytest.approx(hat / results["throughput_mixed"])
    assert results["rejected"] == []


def test_a_rejected_run_is_named_and_its_block_not_compared(cell, theory):
    folder = cell / "throughput/threshold=5/rep=2"
    spoil(folder)
    results = results_of(cell, theory)
    assert [entry["run"] for entry in results["rejected"]] == [str(folder)]
    assert "1 requests were preempted" in results["rejected"][0]["reasons"][0]
    assert results["throughput_by_k"]["5"]["n"] == 2
    assert results["throughput_by_k"]["1"]["n"] == 3
    assert results["verdict"]["n_blocks"] == 2


def test_a_rejected_online_run_is_not_counted(cell, theory):
    assert results_of(cell, theory)["throughput_online"] > 0
    spoil(cell / "online")
    results = results_of(cell, theory)
    assert [entry["run"] for entry in results["rejected"]] == [str(cell / "online")]
    assert results["online"]["n"] == 0
    assert np.isnan(results["throughput_online"])
    # What it looked up is told all the same, by the entry above as what it is.
    assert results["online_estimation"]["updates"] == len(HISTORY)


def test_a_k_without_a_valid_run_is_left_out_and_the_others_are_compared(cell, theory):
    for rep in BLOCKS:
        spoil(cell / f"throughput/threshold=8/rep={rep}")
    results = results_of(cell, theory)
    assert results["k_hat"] in {1, 2, 3, 5}
    assert results["verdict"]["n_blocks"] == 3
    assert results["throughput_by_k"]["8"]["n"] == 0
    assert len(results["rejected"]) == 3


def test_k_star_without_a_valid_run_cannot_be_judged(cell, theory):
    for rep in BLOCKS:
        spoil(cell / f"throughput/threshold={theory['k_star']}/rep={rep}")
    results = results_of(cell, theory)
    assert results["k_hat"] is not None
    assert results["verdict"]["regret"] is None
    assert results["error_decomposition"] is None
    assert "could not be judged" in headline(results)


def test_without_a_complete_block_nothing_is_compared_and_the_rest_stands(cell, theory):
    for rep, k in zip(BLOCKS, (1, 5, 8), strict=True):
        spoil(cell / f"throughput/threshold={k}/rep={rep}")
    results = results_of(cell, theory)
    assert results["k_hat"] is None
    assert results["delta_k"] is None
    assert results["verdict"]["n_blocks"] == 0
    assert results["throughput_mixed"] > 0
    assert "could not be judged" in headline(results)


def test_one_block_gives_a_verdict_without_interval(cell, theory):
    results = results_of(cell, theory, [1])
    verdict = results["verdict"]
    assert verdict["regret"] >= 0
    assert verdict["regret_low"] is None
    assert verdict["indifference_set"] is None
    assert "one block gives no interval, raise repeats" in headline(results)


def test_runs_without_a_steady_window_are_compared_over_the_whole_run(tmp_path, theory):
    results = results_of(write_sweep(tmp_path, theory, 10), theory)
    assert results["verdict"]["regret"] >= 0
    assert "steady" not in results["verdict"]
    assert results["prediction"]["measured_against"] == "whole run"


@pytest.mark.parametrize(
    ("written", "sealed"),
    [("2026-03-01T10:00:00+00:00", True), ("2026-03-01T10:06:00+00:00", False)],
)
def test_a_prediction_is_sealed_if_it_came_before_the_runs(cell, theory, written, sealed):
    assert results_of(cell, theory | {"computed_at": written})["prediction"]["sealed"] is sealed


def test_the_prediction_is_held_against_the_steady_window_at_every_measured_k(cell, theory):
    results = results_of(cell, theory)
    by_k = results["throughput_by_k"]
    wrong = [
        theory["predicted"]["corrected"][int(k) - 1] / block["steady_throughput"]["mean"] - 1
        for k, block in by_k.items()
    ]
    assert results["prediction"]["mape_corrected"] == pytest.approx(np.abs(wrong).mean())
    assert results["prediction"]["measured_against"] == "steady window"


def test_the_error_terms_add_up_to_the_error_of_the_prediction(cell, theory):
    results = results_of(cell, theory)
    terms = results["error_decomposition"]
    k_star = results["k_star"]
    predicted = theory["predicted"]["corrected"][k_star - 1]
    values = results["throughput_by_k"][str(k_star)]["throughput"]["values"]
    assert terms["total"] == pytest.approx(np.log(np.array(values) / predicted).mean())
    assert sum(terms[name] for name in SOURCES) == pytest.approx(terms["total"])
    # The simulated server has the fitted step times, keeps to the policy, and all its time is
    # spent in steps; runs are slowed by about 1 %.
    assert abs(terms["step_times"]) < 0.03
    # Recorded times are rounded to a microsecond.
    assert terms["outside_steps"] == pytest.approx(0, abs=1e-4)
    assert terms["scheduling"] == pytest.approx(0, abs=1e-9)
    assert abs(terms["policy_model"]) < 0.015


def test_rows_of_runs_keep_the_rejected_ones(cell):
    spoil(cell / "throughput/threshold=5/rep=2")
    rows = run_rows(
        "toy", "m", [load_run(file.parent, True, frozenset()) for file in run_files(cell)]
    )
    assert len(rows) == len(run_files(cell))
    assert rows.loc[~rows["valid"], ["threshold", "rep"]].to_numpy().tolist() == [[5, 2]]
    assert rows.loc[rows["policy"] == "mixed", "threshold"].isna().all()


@pytest.fixture
def aggregated(cell: Path, theory: dict[str, Any], root: Path, command_environment) -> Path:
    """A dataset's folder after the scripts of its last two stages."""
    served = termination_requests()
    write_json(cell / "threshold.json", theory)
    write_json(cell / "termination.json", termination_of(served))
    write_parquet(cell / "natural.parquet", served)
    write_parquet(cell / "prompts.parquet", served[["request_id"]].assign(prompt="why?"))

    def call(name: str, *arguments: str | Path) -> None:
        command = [sys.executable, str(root / f"workflow/scripts/{name}.py"), *map(str, arguments)]
        done = subprocess.run(
            command, env=command_environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    call(
        "aggregate",
        *("--dataset", "toy", "--settings", json.dumps(SETTINGS)),
        *("--prompts", cell / "prompts.parquet", "--termination", cell / "termination.json"),
        *("--requests", cell / "natural.parquet", "--threshold", cell / "threshold.json"),
        *("--online", cell / "online/run.json", "--runs", *run_files(cell)),
        *("--results", cell / "toy_results.json", "--table", cell / "table.parquet"),
        *("--truncated", cell / "truncated.json", "--timeline", cell / "timeline.json"),
    )
    call(
        "summary",
        *("--results", cell / "toy_results.json", "--tables", cell / "table.parquet"),
        *("--runs", cell / "runs.parquet", "--summary", cell / "summary.csv"),
    )
    return cell


def test_a_block_on_two_devices_is_named(cell, theory):
    results = results_of(cell, theory)
    count = len(run_files(cell))
    assert results["devices"] == [
        {"name": "a simulated processor", "ids": [], "runs": count, "blocks": BLOCKS}
    ]
    assert "devices" not in dict(verdict_rows(results))

    for place, rep in (("threshold=1", 2), ("threshold=3", 2), ("policy=mixed", 3)):
        file = cell / f"throughput/{place}/rep={rep}/run.json"
        facts = read_json(file)
        card = {"name": "a card", "uuid": "GPU-7"}
        facts["engine"]["hardware"] = {"cpu": "another", "devices": [card]}
        write_json(file, facts)
    results = results_of(cell, theory)
    other = {"name": "a card", "ids": ["GPU-7"], "runs": 3, "blocks": [2, 3]}
    assert results["devices"] == [results["devices"][0], other]
    assert "blocks 2, 3 not all k" in dict(verdict_rows(results))["devices"]


def test_self_checks_are_counted_and_the_worst_is_kept(cell, theory):
    results = results_of(cell, theory)
    assert results["self_checks"] == {"checks": 1, "disturbed": 0, "worst": None}
    file = cell / "throughput/threshold=3/rep=2/run.json"
    facts = read_json(file)
    check = QUIET | {"checked_at": "later", "warnings": ["w"], "likely_cause": "c"}
    write_json(file, facts | {"conditions": {"self_check": check}})
    results = results_of(cell, theory)
    assert results["self_checks"] == {"checks": 2, "disturbed": 1, "worst": check}
    assert dict(verdict_rows(results))["machine"].startswith("not quiet in 1 of 2 self-checks: w")


def test_a_run_with_two_step_times_is_named_and_the_verdict_doubted(cell, theory):
    results = results_of(cell, theory)
    runs = len(run_files(cell)) + 1
    assert results["step_modes"] == {"profile": [], "runs": 0, "of": runs, "worst": None}
    assert results["verdict"]["doubts"] == []
    folder = cell / "throughput/threshold=3/rep=2"
    steps = pd.read_parquet(folder / "steps.parquet")
    slow = np.random.default_rng(0).random(len(steps)) < 0.4
    steps.loc[slow & (steps["decode_requests"] > 0), "duration_s"] *= 5.5
    # The rest of the record follows, as in a run that is really slower.
    steps["done_s"] = steps["duration_s"].cumsum()
    write_parquet(folder / "steps.parquet", steps)
    results = results_of(cell, theory)
    found = results["step_modes"]
    assert (found["runs"], found["worst"]["where"]) == (1, str(folder))
    assert "step_modes" in [one["kind"] for one in results["verdict"]["doubts"]]
    assert "; not to be trusted: " in headline(results)
    assert "decode steps of " in headline(results)


def test_a_busy_host_stands_in_the_sentence(cell, theory):
    file = cell / "throughput/threshold=3/rep=2/run.json"
    facts = read_json(file)
    conditions = facts["conditions"] | {"after": {"load_average": 6.5, "cores": 2}}
    write_json(file, facts | {"conditions": conditions})
    clause = "; not to be trusted: the load average was 6.5 on 2 cores."
    assert headline(results_of(cell, theory)).endswith(clause)


def test_refills_cut_short_reject_a_run_or_are_its_measured_risk(cell, theory):
    folder = cell / f"throughput/threshold={theory['k_star']}/rep=2"
    steps = pd.read_parquet(folder / "steps.parquet")
    begins = (steps["admitted"] > 1) & (steps["refill_cause"] == "threshold")
    steps.loc[begins, ["admitted", "running"]] -= 1
    steps.loc[begins, "waiting"] += 1
    write_parquet(folder / "steps.parquet", steps)
    (rejected,) = results_of(cell, theory)["rejected"]
    count = int(begins.sum())
    assert rejected["reasons"][0].startswith(f"{count} of ")
    bound = load_run(folder, True, frozenset(), memory_bound=True)
    assert bound.reasons == []
    assert out_of_memory([bound])["out_of_memory_cycles"] == count
    assert out_of_memory([bound])["cut_short_refills"] == count


def test_values_are_labelled_with_their_blocks(cell, theory):
    spoil(cell / "throughput/threshold=5/rep=2")
    by_k = results_of(cell, theory)["throughput_by_k"]
    assert sorted(by_k["5"]["throughput"]["blocks"]) == [1, 3]
    assert sorted(by_k["1"]["steady_throughput"]["blocks"]) == BLOCKS


def test_the_scripts_write_every_file(aggregated):
    results = read_json(aggregated / "toy_results.json")
    runs = pd.read_parquet(aggregated / "runs.parquet")
    with (aggregated / "summary.csv").open(newline="", encoding="utf-8") as table:
        (row,) = csv.DictReader(table)
    truncated = read_json(aggregated / "truncated.json")
    phases = read_json(aggregated / "timeline.json")

    assert int(row["k_hat"]) == results["k_hat"]
    assert int(row["tensor_parallel_size"]) == results["tensor_parallel_size"] == 2
    assert len(runs) == len(run_files(aggregated)) + 1
    assert len(truncated) == results["truncated"] > 0
    assert {sample["prompt"] for sample in truncated} == {"why?"}
    for phase, following in pairwise(phases):
        assert phase["start_s"] < phase["end_s"] <= following["start_s"] + 2e-6
    assert not list(aggregated.rglob("*.part"))
