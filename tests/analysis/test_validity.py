"""The gate lets every run of the policy through, whatever its size, and keeps to its tolerance."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.analysis.metrics import inter_token_latencies, refill_sizes, run_metrics
from pdswitch.analysis.validity import CLOCK_TOLERANCE, rejections
from synthetic_runs import N_SLOTS, records_of, workload

runs = st.builds(
    lambda count, seed, threshold, drain: records_of(workload(count, seed), threshold, 1.0, drain),
    count=st.integers(1, 60),
    seed=st.integers(0, 99),
    threshold=st.none() | st.integers(1, N_SLOTS),
    drain=st.sampled_from(["eager", "strict"]),
)


@settings(max_examples=40, deadline=None)
@given(run=runs)
def test_a_run_that_keeps_to_its_policy_counts(run):
    assert rejections(*run, replayed=True) == []


@settings(max_examples=40, deadline=None)
@given(run=runs)
def test_metrics_account_for_every_request_and_token(run):
    steps, requests, facts = run
    found = run_metrics(steps, requests, N_SLOTS)
    # Prefill emits the first token, every other one ends a gap.
    assert len(inter_token_latencies(steps, requests)) == facts["output_tokens"] - len(requests)
    assert sum(refill_sizes(steps)) == len(requests)
    assert found["throughput"] * found["makespan_s"] == pytest.approx(len(requests))
    assert found["output_tokens_per_s"] * found["makespan_s"] == pytest.approx(
        facts["output_tokens"]
    )
    for name in ("ttft", "e2e"):
        assert 0 < found[name]["p50"] <= found[name]["p99"] <= found["makespan_s"] + 1e-9
    if found["steady_window_s"] is not None:
        start, end = found["steady_window_s"]
        assert 0 < start < end < found["makespan_s"]


@pytest.mark.parametrize(("missing", "rejected"), [(0.9, False), (1.1, True)])
def test_step_times_may_miss_five_percent_of_the_clock(missing, rejected):
    steps, requests, facts = records_of(workload(40), 2)
    steps["duration_s"] *= 1 - missing * CLOCK_TOLERANCE
    assert bool(rejections(steps, requests, facts, True)) is rejected


def test_mixed_steps_are_for_the_mixed_policy_only():
    steps, requests, facts = records_of(workload(60), None)
    assert ((steps["prefill_tokens"] > 0) & (steps["decode_requests"] > 0)).any()
    assert rejections(steps, requests, facts, True) == []
    (reason,) = rejections(steps, requests, facts | {"policy": "adaptive"}, True)
    assert "mixed prefill and decode" in reason


def test_wrong_lengths_are_seen_even_if_they_cancel():
    steps, requests, facts = records_of(workload(40), 2)
    requests["max_tokens"] += (requests.index == 0).astype("int32")
    requests["max_tokens"] -= (requests.index == 1).astype("int32")
    (reason,) = rejections(steps, requests, facts, True)
    assert reason == "2 requests generated another number of tokens than asked for"


def test_natural_lengths_may_differ_from_what_was_asked():
    steps, requests, facts = records_of(workload(40), 2)
    facts["tokens_asked"] += 100
    assert rejections(steps, requests, facts, replayed=False) == []
    assert rejections(steps, requests, facts, replayed=True) != []


def test_where_memory_may_run_out_that_is_measured_not_rejected():
    steps, requests, facts = records_of(workload(40), 2)
    steps.loc[5, "preempted"] = 3
    (reason,) = rejections(steps, requests, facts, True)
    assert "3 requests were preempted" in reason
    assert rejections(steps, requests, facts, True, memory_bound=True) == []
