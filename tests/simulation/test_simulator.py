import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.record import REQUEST_TYPES, STEP_TYPES
from pdswitch.simulation import (
    MixedStep,
    geometric_lengths,
    k_star_empirical,
    poisson_arrivals,
    resampled,
    simulate,
)
from pdswitch.theory import (
    ContextDecode,
    HingePrefill,
    LinearDecode,
    StepCurves,
    StepTimes,
    TabulatedDecode,
    TabulatedPrefill,
    exact_throughput,
    expected_refill,
    optimal_threshold,
)
from pdswitch.theory.context import context_per_completion, mean_context

EXAMPLE = StepTimes(12e-3, 2e-5, 6.5e-3, 2e-5)
CURVES = StepCurves(HingePrefill(0.01, 0.002, 1e-4), ContextDecode(0.005, 1e-4, 1e-6))


# -- a second simulator, slow and plain, request by request ----------------------------------------


@dataclass
class Request:
    prompt: int
    output: int
    arrival: float
    computed: int = 0
    generated: int = 0
    admitted: float = math.nan
    first_token: float = math.nan
    finish: float = math.nan


def plain_simulation(requests, n_slots, threshold, curves, mixed, eager, budget, mixed_step, block):
    """Serve the requests; return a row per step in the columns of the step record."""
    now, steps, waiting, slots, later = 0.0, [], [], [], list(requests)
    refill_left = 0
    while waiting or slots or later:
        while later and later[0].arrival <= now:
            waiting.append(later.pop(0))
        if not waiting and not slots:
            now = later[0].arrival
            continue
        partial = [r for r in slots if r.computed < r.prompt]
        free = n_slots - len(slots)
        if not mixed and not partial and not (refill_left and waiting):
            needed = min(threshold, len(waiting)) if eager else threshold
            due = waiting and free and (not slots or free >= needed)
            refill_left = min(free, len(waiting)) if due else 0
        refilling = bool(partial or refill_left)
        decoding = [r for r in slots if r.computed >= r.prompt] if mixed or not refilling else []
        room = budget - len(decoding) if mixed else budget if refilling else 0
        may_enter = free if mixed else refill_left
        held = sum(r.computed for r in slots)
        given = []
        for r in partial:
            given.append((r, min(r.prompt - r.computed, room)))
            room -= given[-1][1]
        admitted = 0
        while room > 0 and may_enter > admitted and waiting:
            r = waiting.pop(0)
            r.admitted = now
            slots.append(r)
            given.append((r, min(r.prompt, room)))
            room -= given[-1][1]
            admitted += 1
        refill_left = max(refill_left - admitted, 0)
        tokens = sum(n for _, n in given)
        if not decoding:
            duration = float(curves.prefill(tokens))
        elif not tokens:
            duration = float(curves.decode(len(decoding), held))
        elif mixed_step:
            duration = (
                mixed_step.fixed_s
                + mixed_step.s_per_prefill_token * tokens
                + mixed_step.s_per_request * len(decoding)
                + curves.decode.context_slope * held
            )
        else:
            duration = max(
                float(curves.prefill(tokens + len(decoding))),
                float(curves.decode(len(decoding), 0.0)),
            )
            duration += curves.decode.context_slope * held
        now += duration
        for r, n in given:
            r.computed += n
        for r in decoding:
            r.computed += 1
        blocks = sum(math.ceil(r.computed / block) for r in slots)
        for r, n in given:
            if n and r.computed == r.prompt:
                r.first_token = now
                r.generated = 1
        for r in decoding:
            r.generated += 1
        running = len(slots)
        ended = [r for r in slots if r.generated == r.output]
        for r in ended:
            r.finish = now
        slots = [r for r in slots if r.generated < r.output]
        steps.append(
            {
                "done_s": now,
                "duration_s": duration,
                "prefill_requests": len(given),
                "prefill_tokens": tokens,
                "admitted": admitted,
                "decode_requests": len(decoding),
                "context_tokens": held,
                "running": running,
                "waiting": len(waiting),
                "finished": len(ended),
                "kv_blocks": blocks,
            }
        )
    return steps


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.data())
def test_the_simulator_is_the_plain_simulation_step_by_step(data):
    n_slots = data.draw(st.integers(1, 6))
    threshold = data.draw(st.integers(1, n_slots))
    count = data.draw(st.integers(1, 14))
    output = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    prompt = data.draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    gaps = data.draw(st.lists(st.sampled_from([0.0, 0.003, 0.1]), min_size=count, max_size=count))
    policy = data.draw(st.sampled_from(["fixed", "mixed"]))
    drain = data.draw(st.sampled_from(["eager", "strict"]))
    budget = data.draw(st.sampled_from([7, 16, 50, None]))
    mixed_step = data.draw(st.sampled_from([None, MixedStep(0.004, 1e-4, 2e-4)]))
    block = data.draw(st.sampled_from([1, 4, 16]))
    arrival = np.cumsum(gaps)
    result = simulate(
        output,
        prompt,
        n_slots,
        threshold,
        CURVES,
        policy=policy,
        drain=drain,
        max_num_batched_tokens=budget,
        arrival_s=arrival,
        mixed_step=mixed_step,
        block_size=block,
        record=True,
    )
    requests = [Request(*fields) for fields in zip(prompt, output, arrival, strict=True)]
    steps = plain_simulation(
        requests,
        n_slots,
        threshold,
        CURVES,
        policy == "mixed",
        drain == "eager",
        budget or 10**9,
        mixed_step,
        block,
    )
    assert result.step_count == len(steps)
    for name in steps[0]:
        np.testing.assert_allclose(result.steps[name], [s[name] for s in steps], err_msg=name)
    for name, field in (
        ("admitted_s", "admitted"),
        ("first_token_s", "first_token"),
        ("finish_s", "finish"),
    ):
        np.testing.assert_allclose(result.requests[name], [getattr(r, field) for r in requests])
    assert result.makespan_s == max(r.finish for r in requests)
    held = [s["context_tokens"] + s["prefill_tokens"] + s["decode_requests"] for s in steps]
    assert result.peak_context_tokens == max(held)


# -- records ---------------------------------------------------------------------------------------


def test_records_have_the_columns_of_the_engines_records():
    result = simulate([3, 1, 5, 2], [10, 20, 30, 40], 2, 1, EXAMPLE, record=True)
    for frame, types in (
        (result.steps_frame(), STEP_TYPES),
        (result.requests_frame(), REQUEST_TYPES),
    ):
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == types
        assert list(frame.columns) == list(types)
    with pytest.raises(ValueError, match="simulate with record=True"):
        simulate([3], [10], 1, 1, EXAMPLE).steps_frame()


def test_step_times_add_up_and_no_fixed_step_mixes():
    lengths = geometric_lengths(0.05, 2000, 1)
    result = simulate(lengths, 50, 16, 5, EXAMPLE, max_num_batched_tokens=200, record=True)
    steps = result.steps_frame()
    assert steps["duration_s"].sum() == pytest.approx(result.makespan_s)
    np.testing.assert_allclose(steps["schedule_s"][1:], steps["done_s"][:-1], atol=1e-9)
    assert not ((steps["prefill_tokens"] > 0) & (steps["decode_requests"] > 0)).any()
    assert steps["prefill_tokens"].max() <= 200
    assert steps["prefill_tokens"].sum() == 2000 * 50
    assert steps["decode_requests"].sum() == (lengths - 1).sum()
    assert steps["finished"].sum() == steps["admitted"].sum() == 2000
    assert (steps["running"] <= 16).all()
    assert (steps["threshold"] == 5).all()


def test_drain_rules_differ_only_at_the_end():
    lengths = geometric_lengths(0.05, 300, 2)
    eager = simulate(lengths, 10, 16, 8, EXAMPLE, record=True)
    strict = simulate(lengths, 10, 16, 8, EXAMPLE, drain="strict", record=True)
    same = min(eager.step_count, strict.step_count) // 2
    np.testing.assert_array_equal(eager.steps["done_s"][:same], strict.steps["done_s"][:same])
    last = {
        name: run.steps["admitted"][np.flatnonzero(run.steps["admitted"])[-1]]
        for name, run in (("eager", eager), ("strict", strict))
    }
    waiting_before = {
        name: run.steps["waiting"][np.flatnonzero(run.steps["admitted"])[-2]]
        for name, run in (("eager", eager), ("strict", strict))
    }
    assert last == waiting_before
    assert eager.makespan_s <= strict.makespan_s


# -- against theory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_slots", "p", "prompt"), [(16, 0.3, 20), (64, 0.05, 128), (256, 1 / 128, 128), (4, 0.6, 5)]
)
def test_the_simulator_agrees_with_the_exact_chain_over_a_million_completions(n_slots, p, prompt):
    lengths = geometric_lengths(p, 1_000_000, 7)
    thresholds = sorted({1, 2, n_slots // 4, n_slots // 2, n_slots})
    thresholds = [k for k in thresholds if k >= 1]
    simulated = [
        simulate(lengths, prompt, n_slots, k, EXAMPLE).steady_throughput for k in thresholds
    ]
    exact = exact_throughput(n_slots, p, EXAMPLE, prompt, thresholds)
    np.testing.assert_allclose(simulated, exact, rtol=5e-3)


def test_the_simulator_agrees_with_the_exact_chain_on_curves():
    curves = StepCurves(
        TabulatedPrefill([100, 400, 2000], [0.009, 0.0095, 0.04]), ContextDecode(6e-3, 2e-5, 2e-7)
    )
    lengths = geometric_lengths(0.02, 400_000, 3)
    for k in (2, 12, 40):
        simulated = simulate(lengths, 100, 64, k, curves).steady_throughput
        exact = exact_throughput(64, 0.02, curves, 100, [k])[0]
        assert simulated == pytest.approx(exact, rel=5e-3)


def test_refills_and_context_are_as_the_theory_says():
    n_slots, k, p = 256, 38, 1 / 128
    lengths = geometric_lengths(p, 60_000, 5)
    result = simulate(lengths, 128, n_slots, k, EXAMPLE, record=True)
    steps = result.steps_frame().iloc[500:-500]
    refills = steps[steps["prefill_tokens"] > 0]
    assert refills["admitted"].mean() == pytest.approx(expected_refill(n_slots, p)[k - 1], rel=0.01)
    decodes = steps[steps["decode_requests"] > 0]
    per_completion = decodes["context_tokens"].sum() / steps["finished"].sum()
    assert per_completion == pytest.approx(context_per_completion(p, 128), rel=0.02)
    model = mean_context(n_slots, k, p, 128)
    for j in (250, 240, 225):
        seen = decodes[decodes["decode_requests"] == j]["context_tokens"].mean()
        assert seen == pytest.approx(model[j - 1], rel=0.03)


def test_ages_do_not_matter_for_short_cycles_but_do_for_long_ones():
    # Same mean length; hazard constant, rising, falling.
    rng = np.random.default_rng(0)
    laws = {
        "constant": rng.geometric(1 / 100, 200_000),
        "rising": rng.integers(50, 151, 200_000),
        "falling": np.ceil(rng.lognormal(np.log(100) - 0.72, 1.2, 200_000)).astype(int),
    }
    short, long = {}, {}
    for name, lengths in laws.items():
        scale = lengths.mean() / 100
        short[name] = simulate(lengths, 50, 128, 16, EXAMPLE).steady_throughput * scale
        long[name] = simulate(lengths, 50, 128, 120, EXAMPLE).steady_throughput * scale
    assert short["rising"] == pytest.approx(short["constant"], rel=0.02)
    assert short["falling"] == pytest.approx(short["constant"], rel=0.02)
    assert long["rising"] > 1.3 * long["constant"] > 1.6 * long["falling"]


def test_the_empirical_optimum_of_geometric_lengths_is_k_star():
    lengths = geometric_lengths(1 / 100, 5_000, 11)
    found = k_star_empirical(
        lengths, 64, 64, EXAMPLE, completions=8_000, replicates=6, thresholds=range(1, 65, 1)
    )
    k = optimal_threshold(64, 1 / lengths.mean(), EXAMPLE.alpha_p, EXAMPLE.alpha_d)
    assert found.threshold in found.indifferent
    assert min(found.indifferent) - 2 <= k <= max(found.indifferent) + 2
    # Paired gaps are far surer than the means themselves.
    near = abs(found.thresholds - found.threshold) == 2
    assert (found.gap_standard_error[near] < found.standard_error[near]).all()


def test_the_best_threshold_depends_on_the_hazard_when_refills_are_dear():
    dear = StepTimes(0.6, 2e-5, 6.5e-3, 2e-5)
    rng = np.random.default_rng(1)
    best = {}
    for name, lengths in (
        ("rising", rng.integers(80, 121, 5_000)),
        ("falling", np.ceil(rng.lognormal(np.log(100) - 0.72, 1.2, 5_000)).astype(int)),
    ):
        found = k_star_empirical(
            lengths, 64, 64, dear, completions=4_000, replicates=3, thresholds=range(4, 65, 4)
        )
        best[name] = found.threshold
    assert best["rising"] > best["falling"] + 8


# -- the mixed baseline ----------------------------------------------------------------------------


def test_mixed_keeps_all_slots_busy():
    lengths = geometric_lengths(0.02, 5_000, 3)
    result = simulate(
        lengths, 64, 32, 1, EXAMPLE, policy="mixed", max_num_batched_tokens=512, record=True
    )
    steps = result.steps_frame()
    assert (steps["threshold"] == 0).all()
    assert ((steps["prefill_tokens"] > 0) & (steps["decode_requests"] > 0)).any()
    assert (steps["prefill_tokens"] + steps["decode_requests"] <= 512).all()
    middle = steps.iloc[200 : len(steps) - 400]
    assert (middle["running"] == 32).mean() > 0.95


def test_the_mixed_law_sets_the_time_of_mixed_steps():
    law = MixedStep(0.02, 1e-5, 1e-4)
    result = simulate([5, 5, 5], 10, 2, 1, EXAMPLE, policy="mixed", mixed_step=law, record=True)
    steps = result.steps_frame()
    both = steps[(steps["prefill_tokens"] > 0) & (steps["decode_requests"] > 0)]
    assert both.empty
    result = simulate([5, 9, 5], 10, 2, 1, EXAMPLE, policy="mixed", mixed_step=law, record=True)
    steps = result.steps_frame()
    both = steps[(steps["prefill_tokens"] > 0) & (steps["decode_requests"] > 0)]
    np.testing.assert_allclose(both["duration_s"], [0.02 + 1e-5 * 10 + 1e-4])


# -- arrivals and workloads ------------------------------------------------------------------------


def test_a_slow_arrival_rate_is_the_throughput():
    arrivals = poisson_arrivals(2.0, 3_000, 1)
    result = simulate(geometric_lengths(0.1, 3_000, 2), 20, 16, 8, EXAMPLE, arrival_s=arrivals)
    assert result.throughput == pytest.approx(3_000 / arrivals[-1], rel=0.01)
    assert (result.requests["admitted_s"] >= arrivals).all()


def test_workloads_are_reproducible_and_checked():
    np.testing.assert_array_equal(geometric_lengths(0.1, 50, 3), geometric_lengths(0.1, 50, 3))
    assert geometric_lengths(1.0, 5, 0).tolist() == [1] * 5
    assert set(resampled([4, 7], 100, 1)) == {4, 7}
    with pytest.raises(ValueError, match="no observed lengths"):
        resampled([], 10, 0)
    with pytest.raises(ValueError, match="rate must be a finite number above 0"):
        poisson_arrivals(0.0, 10, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], 1, 2, 1), {}, "output_tokens must be a list with one number per request"),
        (([0], 1, 2, 1), {}, "output_tokens must be whole numbers of at least 1"),
        (([2.5], 1, 2, 1), {}, "output_tokens must be whole numbers"),
        (([2], 0, 2, 1), {}, "prompt_tokens must be whole numbers"),
        (([2], 1, 0, 1), {}, "n_slots must be a whole number"),
        (([2], 1, 2, 3), {}, "threshold must be from 1 to n_slots = 2, got 3"),
        (([2], 1, 2, 1), {"policy": "greedy"}, "policy must be fixed or mixed"),
        (([2], 1, 2, 1), {"drain": "lazy"}, "drain eager or strict"),
        (([2], 1, 2, 1), {"arrival_s": [1.0, 0.0]}, "arrival_s must be 1 finite, ascending times"),
        (([2, 2], 1, 2, 1), {"arrival_s": [1.0, 0.0]}, "arrival_s must be 2 finite, ascending"),
        (([2], 1, 2, 1), {"max_num_batched_tokens": 0}, "leaves no room for prefill"),
        (([2], 1, 4, 1), {"max_num_batched_tokens": 4, "policy": "mixed"}, "leaves no room"),
        (([2], 1, 2, 1), {"block_size": 0}, "block_size must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        simulate(*arguments, EXAMPLE, **options)


def test_curves_that_cannot_be_compiled_are_refused():
    with pytest.raises(ValueError, match="tabulate yours with TabulatedPrefill"):
        simulate([2], 1, 2, 1, StepCurves(lambda tokens: tokens, LinearDecode(1.0, 0.0)))
    with pytest.raises(ValueError, match="tabulate yours"):
        simulate([2], 1, 2, 1, StepCurves(EXAMPLE.curves.prefill, lambda j, c=0: j))
    tabulated = StepCurves(EXAMPLE.curves.prefill, TabulatedDecode([1, 2], [0.1, 0.2]))
    assert simulate([2], 1, 2, 1, tabulated).makespan_s == pytest.approx(0.012 + 2e-5 + 0.1)


def test_empirical_optimum_needs_enough_completions():
    with pytest.raises(ValueError, match=r"at least 2 replicates of more than 2·n_slots = 128"):
        k_star_empirical([3, 4], 5, 64, EXAMPLE, completions=100)
    with pytest.raises(ValueError, match="s_per_request must be a finite number"):
        MixedStep(1.0, 0.0, -1.0)
