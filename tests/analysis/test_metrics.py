"""Metrics and validity of a run that is short enough to be worked out by hand."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest

from pdswitch.analysis.metrics import (
    inter_token_latencies,
    refill_sizes,
    run_metrics,
    steady_window,
)
from pdswitch.analysis.results import CURVE_POINTS, phases_of_run
from pdswitch.analysis.validity import rejections
from synthetic_runs import ENGINE


@pytest.fixture
def run():
    """Two slots, k = 1, four requests of two tokens; every step takes one second."""
    # refill 2 | decode 2 (both end) | refill 2 | decode 2 (both end)
    steps = pd.DataFrame(
        {
            "step": range(4),
            "schedule_s": [0.0, 1, 2, 3],
            "done_s": [1.0, 2, 3, 4],
            "duration_s": [1.0] * 4,
            "prefill_requests": [2, 0, 2, 0],
            "prefill_tokens": [20, 0, 20, 0],
            "admitted": [2, 0, 2, 0],
            "decode_requests": [0, 2, 0, 2],
            "context_tokens": [0, 20, 0, 20],
            "running": [2, 2, 2, 2],
            "waiting": [2, 2, 0, 0],
            "threshold": [1] * 4,
            "finished": [0, 2, 0, 2],
            "kv_blocks": [2, 3, 2, 3],
            "preempted": [0] * 4,
            "cached_tokens": [0] * 4,
            "refill_cause": ["idle", "", "idle", ""],
        }
    )
    requests = pd.DataFrame(
        {
            "request_id": ["a", "b", "c", "d"],
            "prompt_tokens": [10] * 4,
            "max_tokens": [2] * 4,
            "output_tokens": [2] * 4,
            "finish_reason": ["length"] * 4,
            "arrival_s": [0.0] * 4,
            "admitted_s": [0.0, 0, 2, 2],
            "first_token_s": [1.0, 1, 3, 3],
            "finish_s": [2.0, 2, 4, 4],
            "preemptions": [0] * 4,
        }
    )
    facts = {"policy": "fixed", "output_tokens": 8, "tokens_asked": 8, "n_slots": 2}
    facts["engine"] = deepcopy(ENGINE)
    return steps, requests, facts


def test_metrics_by_hand(run):
    steps, requests, _ = run
    found = run_metrics(steps, requests, 2)
    assert found["throughput"] == 1.0
    assert found["output_tokens_per_s"] == 2.0
    assert found["total_tokens_per_s"] == 12.0
    assert found["ttft"]["p50"] == 2.0
    assert found["tpot"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}
    assert found["itl"]["p99"] == 1.0
    assert found["e2e"]["p95"] == pytest.approx(4.0)
    assert found["kv_high_water"] == 3
    assert found["mean_refill"] == 2.0
    assert found["steady_window_s"] is None  # no refill left two requests waiting after the first


def test_excluded_requests_leave_throughput_and_latency(run):
    steps, requests, _ = run
    found = run_metrics(steps, requests, 2, frozenset(["d"]))
    assert found["throughput"] == 0.75
    assert found["excluded"] == 1


def test_the_steady_window_runs_from_refill_to_refill(run):
    steps, _, _ = run
    # The same run, as if many more requests were waiting all the time.
    longer = pd.concat([steps] * 3, ignore_index=True).assign(waiting=9)
    longer["done_s"] = np.arange(1.0, 13)
    assert steady_window(longer, 2) == (1.0, 11.0)


def test_the_steady_window_ends_with_a_whole_refill(run):
    steps, _, _ = run
    # The second refill takes two steps; after the first of them two requests still wait.
    chunked = steps.iloc[[0, 1, 2, 2, 3]].reset_index(drop=True)
    chunked["done_s"] = np.arange(1.0, 6)
    chunked["waiting"] = [4, 4, 2, 1, 1]
    chunked["refill_cause"] = ["idle", "", "idle", "continued", ""]
    assert steady_window(chunked, 2) is None
    chunked["waiting"] = [4, 4, 3, 2, 2]
    assert steady_window(chunked, 2) == (1.0, 4.0)


def test_a_frozen_step_lies_inside_a_gap(run):
    steps, requests, _ = run
    # Request a stays on through the second refill and ends with the last step.
    requests = requests.iloc[:1].assign(output_tokens=3, finish_s=4.0)
    gaps = inter_token_latencies(steps, requests)
    assert sorted(gaps) == [1.0, 2.0]


def test_refills_of_several_steps_count_once(run):
    steps, _, _ = run
    chunked = steps.assign(prefill_tokens=[20, 20, 0, 20], admitted=[2, 1, 0, 1])
    assert refill_sizes(chunked) == [3, 1]


def test_refills_that_the_latency_guard_forced_are_counted(run):
    steps, requests, _ = run
    assert run_metrics(steps, requests, 2)["forced_refills"] == 0
    steps["refill_cause"] = ["idle", "", "max_hold", ""]
    assert run_metrics(steps, requests, 2)["forced_refills"] == 1


def test_a_refill_forced_twice_in_a_row_is_one_refill(run):
    steps, requests, _ = run
    steps = steps.assign(
        prefill_tokens=[20, 0, 20, 20], refill_cause=["idle", "", "max_hold", "max_hold"]
    )
    metrics = run_metrics(steps, requests, 2)
    assert (metrics["refills"], metrics["forced_refills"]) == (2, 1)


def test_a_valid_run_has_no_reason_against_it(run):
    assert rejections(*run, replayed=True) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s, r, f: f.update(output_tokens=7), "7 tokens were generated, 8 asked for"),
        (lambda s, r, f: f.update(requests_asked=5), "4 requests ended of 5"),
        (lambda s, r, f: s.__setitem__("decode_requests", 1), "2 steps mixed prefill and decode"),
        (lambda s, r, f: s.__setitem__("preempted", [0, 1, 0, 0]), "1 requests were preempted"),
        (lambda s, r, f: s.__setitem__("prefill_tokens", 0), "2 of 2 refills were cut short"),
        (lambda s, r, f: s.__setitem__("cached_tokens", 3), "12 prompt tokens came from"),
        (lambda s, r, f: s.__setitem__("duration_s", 0.9), "add up to 3.600 s of 4.000 s"),
        (lambda s, r, f: r.__setitem__("finish_reason", "abort"), "4 requests were aborted"),
        (
            lambda s, r, f: f["engine"]["workers"][0].update(torch_threads=2),
            "the engine has 2 torch threads, 1 asked for",
        ),
        (
            lambda s, r, f: f["engine"]["workers"].append(ENGINE["workers"][0] | {"cores": 8}),
            "the engine has 8 cores, 1 asked for",
        ),
        (
            lambda s, r, f: f["engine"]["environment"].update(OMP_NUM_THREADS="2"),
            "the engine has variables that nobody asked for: OMP_NUM_THREADS",
        ),
        (
            lambda s, r, f: f["engine"]["environment"].pop("NCCL_DEBUG"),
            "the engine lacks variables or has others' values: NCCL_DEBUG",
        ),
        (
            lambda s, r, f: f["engine"].pop("workers"),
            "the record does not say which threads and environment the engine had",
        ),
    ],
)
def test_every_fault_is_named_with_its_numbers(run, change, sentence):
    steps, requests, facts = run
    change(steps, requests, facts)
    assert any(sentence in reason for reason in rejections(steps, requests, facts, True))


def test_where_vllm_decides_on_threads_any_number_counts(run):
    steps, requests, facts = run
    facts["engine"]["asked"] |= {"torch_threads": None, "cores": None}
    facts["engine"]["workers"][0] |= {"torch_threads": 16, "cores": 16}
    assert rejections(steps, requests, facts, True) == []


def test_a_step_without_work_is_no_fault(run):
    # Under asynchronous scheduling it follows the last tokens of all that run.
    steps, requests, facts = run
    steps.loc[1, "decode_requests"] = 0
    assert rejections(steps, requests, facts, True) == []
    steps.loc[2, "prefill_tokens"] = 0
    (reason,) = rejections(steps, requests, facts, True)
    assert reason == "1 of 1 refills were cut short: the KV memory is too small for N"


def test_the_timeline_merges_steps_of_one_kind(run):
    steps, _, _ = run
    longer = pd.concat([steps.iloc[[0, 1, 1, 1]], steps.iloc[[2, 3]]], ignore_index=True)
    phases = phases_of_run(longer)
    assert [phase["phase"] for phase in phases] == ["prefill", "decode", "prefill", "decode"]
    assert phases[1]["steps"] == 3
    assert phases[1]["tokens"] == 6
    assert len(phases[1]["curve"]) == 3


def test_the_timeline_shows_the_shape_of_a_long_drain(run):
    steps, _, _ = run
    drain = pd.concat([steps.iloc[[1]]] * 1000, ignore_index=True)
    drain["done_s"], drain["finished"] = np.arange(1.0, 1001.0), 0
    drain["running"] = 1000 - np.arange(1000)
    (phase,) = phases_of_run(drain)
    assert len(phase["curve"]) == CURVE_POINTS
    assert phase["curve"][0] == [1.0, 1000]
    assert phase["curve"][-1] == [phase["end_s"], phase["requests"]] == [1000.0, 1]
    assert all(time + requests == 1001 for time, requests in phase["curve"])
