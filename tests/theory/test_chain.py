import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pdswitch.theory import (
    BudgetedPrefill,
    ContextDecode,
    HingePrefill,
    LinearDecode,
    LinearPrefill,
    StepCurves,
    StepTimes,
    TabulatedDecode,
    TabulatedPrefill,
    corrected_throughput,
    exact_throughput,
    expected_refill,
    k_star_measured,
    optimal_threshold,
    optimal_threshold_corrected,
    optimal_threshold_exact,
    predicted_throughput,
    threshold_table_measured,
)
from pdswitch.theory.context import context_per_completion, mean_context

MATHEMATICS = settings(derandomize=True, max_examples=60, deadline=None)
EXAMPLE = StepTimes(12e-3, 2e-5, 6.5e-3, 2e-5)


def dense_throughput(n_slots, p, prefill, decode, threshold):
    """The chain with all its states and transitions, solved as a linear system."""
    size = n_slots + 1
    move = np.zeros((size, size))
    seconds = np.zeros(size)
    admitted = np.zeros(size)
    for n in range(size):
        if n <= n_slots - threshold:
            ended = binom.pmf(np.arange(n_slots - n + 1), n_slots - n, p)
            move[n, n_slots - np.arange(n_slots - n + 1)] = ended
            seconds[n], admitted[n] = prefill(n_slots - n), n_slots - n
        else:
            move[n, n - np.arange(n + 1)] = binom.pmf(np.arange(n + 1), n, p)
            seconds[n] = decode(n)
    system = np.vstack([(move.T - np.eye(size))[:-1], np.ones(size)])
    law = np.linalg.solve(system, np.append(np.zeros(size - 1), 1.0))
    return law @ admitted / (law @ seconds)


@MATHEMATICS
@given(
    st.integers(1, 40),
    st.floats(1e-3, 0.97),
    st.floats(0.0, 10.0),
    st.floats(0.0, 1.0),
    st.data(),
)
def test_the_exact_chain_is_the_dense_chain(n_slots, p, alpha_p, beta_d, data):
    k = data.draw(st.integers(1, n_slots))
    step_times = StepTimes(alpha_p, 0.01, 1.0, beta_d)
    dense = dense_throughput(
        n_slots, p, lambda f: alpha_p + 0.01 * f * 7.0, lambda n: 1.0 + beta_d * n, k
    )
    exact = exact_throughput(n_slots, p, step_times, 7.0, [k])
    np.testing.assert_allclose(exact, dense, rtol=1e-9)


def test_the_example_of_the_design():
    k, exact = optimal_threshold_exact(256, 1 / 128, EXAMPLE, 128)
    closed = optimal_threshold(256, 1 / 128, 12e-3, 6.5e-3)
    published = optimal_threshold(256, 1 / 128, 12e-3, 6.5e-3, 2e-5, "single_exit")
    assert (k, closed, published) == (38, 39, 87)
    loss = 1 - exact / exact.max()
    assert loss[closed - 1] == pytest.approx(1e-5, rel=0.2)
    assert loss[published - 1] == pytest.approx(0.030, abs=5e-4)
    single = predicted_throughput(256, 1 / 128, EXAMPLE, 128, "single_exit")
    assert single[published - 1] / exact[published - 1] == pytest.approx(0.57, abs=0.01)
    predicted = predicted_throughput(256, 1 / 128, EXAMPLE, 128)
    assert predicted[1] / exact[1] == pytest.approx(0.854, abs=0.002)
    assert predicted[9] / exact[9] == pytest.approx(0.984, abs=0.002)


CORRECTED_DOMAIN = [
    (n_slots, mean)
    for n_slots in (2, 5, 8, 16, 32, 64, 128, 256, 512, 1024)
    for mean in (0.01, 0.1, 1.0, 2.0, 4.0, 8.0)
    if mean < n_slots
]


@pytest.mark.parametrize(("n_slots", "endings"), CORRECTED_DOMAIN)
def test_the_corrected_curve_is_within_half_a_percent_of_the_chain(n_slots, endings):
    # endings: N·p, requests ended by a step. Extremes of alpha_p/alpha_d bound all in between.
    p = endings / n_slots
    for alpha_p in (0.1, 10.0, 1000.0):
        step_times = StepTimes(alpha_p, 0.0, 1.0, 0.0)
        exact = exact_throughput(n_slots, p, step_times, 1.0)
        corrected = corrected_throughput(n_slots, p, step_times, 1.0)
        np.testing.assert_allclose(corrected, exact, rtol=5e-3)


@MATHEMATICS
@given(st.integers(2, 60), st.floats(1e-3, 0.999), st.floats(0.01, 100.0), st.floats(0.0, 0.1))
def test_the_corrected_curve_is_within_one_percent_for_any_p(n_slots, p, alpha_p, beta_d):
    step_times = StepTimes(alpha_p, 0.0, 1.0, beta_d)
    exact = exact_throughput(n_slots, p, step_times, 1.0)
    np.testing.assert_allclose(corrected_throughput(n_slots, p, step_times, 1.0), exact, rtol=0.01)


def worst_regret(n_slots, endings, choose):
    p = endings / n_slots
    worst = 0.0
    for alpha_p in np.geomspace(0.3, 300.0, 25):
        step_times = StepTimes(alpha_p, 0.0, 1.0, 0.0)
        exact = exact_throughput(n_slots, p, step_times, 1.0)
        worst = max(worst, 1 - exact[choose(p, step_times) - 1] / exact.max())
    return worst


@pytest.mark.parametrize(
    ("n_slots", "endings"), [(256, 4), (256, 1), (512, 4), (128, 2), (64, 0.5)]
)
def test_regret_of_k_star_is_below_a_tenth_of_a_percent_with_many_slots(n_slots, endings):
    def choose(p, step_times):
        return optimal_threshold(n_slots, p, step_times.alpha_p, step_times.alpha_d)

    assert worst_regret(n_slots, endings, choose) <= 1e-3


@pytest.mark.parametrize(("n_slots", "endings"), [(8, 1), (16, 4), (32, 4), (64, 4), (256, 4)])
def test_the_corrected_threshold_has_no_regret_with_few_slots_either(n_slots, endings):
    def choose(p, step_times):
        return optimal_threshold_corrected(n_slots, p, step_times, 1.0)[0]

    assert worst_regret(n_slots, endings, choose) <= 1e-4


def test_the_refill_overshoots_as_published_where_few_requests_end_at_once():
    k = np.arange(1, 257)
    overshoot = expected_refill(256, 1 / 1024) - k
    np.testing.assert_allclose(overshoot[20:], (256 - k[20:]) / 2048, atol=2e-3)
    assert expected_refill(4, 1.0).tolist() == [4.0] * 4
    assert expected_refill(1, 0.3).tolist() == [1.0]


def test_every_request_of_one_token_ends_in_its_refill():
    expected = 8 / (12e-3 + 2e-5 * 8 * 100)
    for curve in (exact_throughput, corrected_throughput):
        np.testing.assert_allclose(curve(8, 1.0, EXAMPLE, 100.0), np.full(8, expected))
    with pytest.raises(ValueError, match="give a positive prefill time"):
        exact_throughput(8, 1.0, StepTimes(0.0, 0.0, 1.0, 0.0), 100.0)
    with pytest.raises(ValueError, match="give a positive prefill time"):
        corrected_throughput(8, 1.0, StepTimes(0.0, 0.0, 1.0, 0.0), 100.0)


@pytest.mark.parametrize("p", [1e-9, 1e-300])
def test_where_requests_never_end_together_all_curves_agree(p):
    curves = [
        curve(8, p, EXAMPLE, 128.0)
        for curve in (exact_throughput, corrected_throughput, predicted_throughput)
    ]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-9)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-7)


def test_one_slot_serves_one_request_after_the_other():
    p = 0.1
    # Prefill, then (1-p)/p decode steps on average.
    expected = 1 / (12e-3 + 2e-5 * 100 + (1 - p) / p * 6.52e-3)
    for curve in (exact_throughput, corrected_throughput):
        np.testing.assert_allclose(curve(1, p, EXAMPLE, 100.0), [expected])


@pytest.mark.parametrize("curve", [exact_throughput, corrected_throughput])
def test_tables_of_the_lines_give_the_lines_curve(curve):
    tables = StepCurves(
        TabulatedPrefill([0, 50_000], EXAMPLE.curves.prefill([0, 50_000])),
        TabulatedDecode([1, 64], EXAMPLE.curves.decode([1, 64])),
    )
    np.testing.assert_allclose(curve(64, 0.02, tables, 128), curve(64, 0.02, EXAMPLE, 128))


def test_a_context_term_costs_every_completion_the_same_and_leaves_k_star_alone():
    p, prompt, gamma = 0.02, 128.0, 1e-6
    with_context = StepCurves(LinearPrefill(12e-3, 2e-5), ContextDecode(6.5e-3, 2e-5, gamma))
    seconds = gamma * context_per_completion(p, prompt)
    for curve in (exact_throughput, corrected_throughput):
        np.testing.assert_allclose(
            1 / curve(64, p, with_context, prompt), 1 / curve(64, p, EXAMPLE, prompt) + seconds
        )
    k, _ = k_star_measured(64, p, *with_context, prompt)
    assert k == k_star_measured(64, p, *EXAMPLE.curves, prompt)[0]


def test_any_callable_is_taken_at_the_mean_context():
    class Affine:
        """The curve of `ContextDecode`, which does not say that it is affine."""

        def __call__(self, requests, context_tokens=0.0):
            return ContextDecode(6.5e-3, 2e-5, 1e-7)(requests, context_tokens)

    known = StepCurves(LinearPrefill(12e-3, 2e-5), ContextDecode(6.5e-3, 2e-5, 1e-7))
    unknown = StepCurves(LinearPrefill(12e-3, 2e-5), Affine())
    for curve in (exact_throughput, corrected_throughput):
        np.testing.assert_allclose(
            curve(256, 1 / 128, unknown, 128)[8:128],
            curve(256, 1 / 128, known, 128)[8:128],
            rtol=0.01,
        )


def test_mean_context_at_the_ends_of_a_cycle():
    context = mean_context(100, 100, 0.01, 50.0)
    # Everything is refilled at once: prompts only at the start, the last one 100·ln(100) old.
    assert context[-1] == pytest.approx(100 * 50.0)
    assert context[0] == pytest.approx(50.0 + 100 * np.log(100))


def test_k_star_measured_with_lines_is_the_corrected_optimum():
    for n_slots, p in ((64, 0.01), (256, 1 / 128), (32, 0.1)):
        k, curve = k_star_measured(n_slots, p, *EXAMPLE.curves, 128.0)
        assert k == optimal_threshold_corrected(n_slots, p, EXAMPLE, 128.0)[0]
        assert curve[k - 1] == curve.max()
        assert abs(k - optimal_threshold(n_slots, p, EXAMPLE.alpha_p, EXAMPLE.alpha_d)) <= 3


def test_a_hinge_makes_a_refill_worth_filling_to_its_corner():
    # Prefill costs the same up to 1,000 tokens: 8 requests of 125 tokens.
    hinge = HingePrefill(0.02, 0.0, 2e-5)
    k, _ = k_star_measured(256, 1 / 512, hinge, LinearDecode(6.5e-3, 0.0), 125.0)
    line, _ = k_star_measured(
        256, 1 / 512, LinearPrefill(0.0, 2e-5), LinearDecode(6.5e-3, 0.0), 125.0
    )
    assert line == 1
    assert 6 <= k <= 8


def test_a_token_budget_stops_long_refills_from_paying():
    decode = LinearDecode(6.5e-3, 2e-5)
    free, _ = k_star_measured(256, 1 / 128, LinearPrefill(0.05, 2e-5), decode, 128.0)
    cut, _ = k_star_measured(
        256, 1 / 128, BudgetedPrefill(LinearPrefill(0.05, 2e-5), 2048), decode, 128.0
    )
    # A refill ends just below a whole number of budgets.
    assert expected_refill(256, 1 / 128)[cut - 1] * 128 % 2048 >= 1900
    assert cut != free


def test_the_measured_table_looks_up_the_measured_k_star():
    decode = LinearDecode(6.5e-3, 2e-5)
    prefill = HingePrefill(9.5e-3, 2e-3, 2.2e-5)
    edges, thresholds = threshold_table_measured(64, prefill, decode, 128.0, 1e-3, 0.05)
    assert len(thresholds) == len(edges) + 1
    assert (np.diff(edges) > 0).all()
    assert len(edges) > 2
    for p in np.geomspace(1e-3, 0.05, 40):
        if np.abs(edges / p - 1).min() > 1e-3:
            k, _ = k_star_measured(64, p, prefill, decode, 128.0)
            assert thresholds[np.searchsorted(edges, p)] == k


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.5, EXAMPLE, 1.0), "n_slots must be a whole number"),
        ((4, 0.0, EXAMPLE, 1.0), "termination_probability must be in"),
        ((4, 0.5, EXAMPLE, -1.0), "mean_prompt_tokens must be a finite number of at least 0"),
        ((4, 0.5, EXAMPLE, float("nan")), "mean_prompt_tokens must be a finite number"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments, message):
    for curve in (exact_throughput, corrected_throughput):
        with pytest.raises(ValueError, match=message):
            curve(*arguments)


def test_thresholds_outside_the_slots_are_refused():
    with pytest.raises(ValueError, match="a threshold must be from 1 to n_slots = 4, got 5"):
        exact_throughput(4, 0.5, EXAMPLE, 1.0, [5])
