import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.theory import (
    StepTimes,
    asymptotic_theta,
    harmonic_gain,
    optimal_threshold,
    predicted_throughput,
    sensitivity,
    threshold_table,
    transition_points,
)
from pdswitch.theory.closed_form import time_per_completion

MATHEMATICS = settings(derandomize=True, max_examples=100, deadline=None)

slots = st.integers(1, 300)
probabilities = st.floats(1e-5, 1.0)
times = st.floats(1e-6, 1.0)


def brute_force(n_slots, p, step_times, prompt):
    """X(k) for all k, summed term by term as the definition says."""
    curve = np.empty(n_slots)
    decode = 0.0
    for k in range(1, n_slots + 1):
        j = n_slots - k + 1
        decode += (step_times.alpha_d + step_times.beta_d * j) / (j * p)
        curve[k - 1] = k / (step_times.alpha_p + step_times.beta_p * k * prompt + decode)
    return curve


def random_sets(count, largest, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n_slots = int(np.exp(rng.uniform(0, np.log(largest)))) or 1
        p = float(np.exp(rng.uniform(np.log(1e-5), 0)))
        alpha_p, alpha_d, beta_p, beta_d = np.exp(rng.uniform(np.log(1e-7), 0, 4))
        yield n_slots, p, StepTimes(alpha_p, beta_p, alpha_d, beta_d), float(rng.uniform(0, 4000))


def test_k_star_is_the_argmax_of_the_predicted_curve_for_10000_parameter_sets():
    for n_slots, p, step_times, prompt in random_sets(10_000, 4096, 0):
        k = optimal_threshold(n_slots, p, step_times.alpha_p, step_times.alpha_d)
        curve = predicted_throughput(n_slots, p, step_times, prompt)
        assert curve[k - 1] >= curve.max() * (1 - 1e-12)


def test_the_predicted_curve_is_its_definition_summed_term_by_term():
    for n_slots, p, step_times, prompt in random_sets(60, 400, 1):
        np.testing.assert_allclose(
            predicted_throughput(n_slots, p, step_times, prompt),
            brute_force(n_slots, p, step_times, prompt),
            rtol=1e-12,
        )


def test_k_star_is_the_published_condition_on_tau():
    for n_slots, p, times_, _ in random_sets(300, 200, 2):
        for form in ("expected", "single_exit"):
            # Only single_exit depends on beta_d; with "expected" its rounding can move a tie.
            beta_d = times_.beta_d if form == "single_exit" else 0.0
            tau = np.append(np.inf, time_per_completion(n_slots, p, times_.alpha_d, beta_d, form))
            k = next(
                k
                for k in range(1, n_slots + 1)
                if k * tau[n_slots - k] - tau[n_slots - k + 1 :].sum() >= times_.alpha_p
            )
            assert k == optimal_threshold(
                n_slots, p, times_.alpha_p, times_.alpha_d, times_.beta_d, form
            )


def test_k_star_is_the_harmonic_form():
    for n_slots, p, times_, _ in random_sets(300, 300, 3):
        k = np.arange(1, n_slots)
        harmonic = np.append(0.0, np.cumsum(1.0 / np.arange(1, n_slots + 1)))
        gain = k / (n_slots - k) - (harmonic[n_slots] - harmonic[n_slots - k])
        np.testing.assert_allclose(harmonic_gain(n_slots), gain, rtol=1e-9, atol=1e-12)
        reached = np.flatnonzero(harmonic_gain(n_slots) >= p * times_.alpha_p / times_.alpha_d)
        expected = reached[0] + 1 if reached.size else n_slots
        assert optimal_threshold(n_slots, p, times_.alpha_p, times_.alpha_d) == expected


@MATHEMATICS
@given(slots, probabilities, times, times, st.integers(-20, 20))
def test_k_star_does_not_depend_on_the_unit_of_time(n_slots, p, alpha_p, alpha_d, exponent):
    # Powers of two scale without rounding.
    scale = 2.0**exponent
    assert optimal_threshold(n_slots, p, alpha_p, alpha_d) == optimal_threshold(
        n_slots, p, alpha_p * scale, alpha_d * scale
    )


@MATHEMATICS
@given(slots, probabilities, times, times, st.floats(1.0, 100.0))
def test_k_star_rises_with_alpha_p_and_p_and_falls_with_alpha_d(n_slots, p, alpha_p, alpha_d, by):
    k = optimal_threshold(n_slots, p, alpha_p, alpha_d)
    assert optimal_threshold(n_slots, p, alpha_p * by, alpha_d) >= k
    assert optimal_threshold(n_slots, p, alpha_p, alpha_d * by) <= k
    assert optimal_threshold(n_slots, p / by, alpha_p, alpha_d) <= k


@MATHEMATICS
@given(slots, probabilities, times, times, times, times, st.floats(0, 1e4))
def test_beta_p_beta_d_and_the_prompt_do_not_move_the_optimum(
    n_slots, p, alpha_p, alpha_d, beta_p, beta_d, prompt
):
    k = optimal_threshold(n_slots, p, alpha_p, alpha_d)
    assert optimal_threshold(n_slots, p, alpha_p, alpha_d, beta_d) == k
    curve = predicted_throughput(n_slots, p, StepTimes(alpha_p, beta_p, alpha_d, beta_d), prompt)
    assert curve[k - 1] >= curve.max() * (1 - 1e-12)


def test_limits_of_k_star():
    assert optimal_threshold(1, 0.5, 1.0, 1.0) == 1
    assert optimal_threshold(64, 1e-300, 1.0, 1.0) == 1
    assert optimal_threshold(64, 0.5, 0.0, 1.0) == 1
    assert optimal_threshold(64, 0.5, 1.0, 0.0) == 64
    assert optimal_threshold(64, 0.5, 0.0, 0.0) == 1
    assert optimal_threshold(64, 1.0, 1e9, 1.0) == 64
    assert optimal_threshold(64, 1.0, 1e9, 1.0, per_completion="single_exit") == 64


def test_single_exit_agrees_only_while_few_end_at_once():
    few = (
        optimal_threshold(16, 1e-6, 1e3, 1.0),
        optimal_threshold(16, 1e-6, 1e3, 1.0, per_completion="single_exit"),
    )
    many = (
        optimal_threshold(256, 1 / 128, 12e-3, 6.5e-3),
        optimal_threshold(256, 1 / 128, 12e-3, 6.5e-3, 2e-5, "single_exit"),
    )
    assert few[0] == few[1]
    assert many == (39, 87)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.5, 1.0, 1.0), "n_slots must be a whole number of at least 1, got 0"),
        ((2.5, 0.5, 1.0, 1.0), "n_slots must be a whole number"),
        ((float("nan"), 0.5, 1.0, 1.0), "n_slots must be a whole number"),
        ((float("inf"), 0.5, 1.0, 1.0), "n_slots must be a whole number"),
        ((8, 0.0, 1.0, 1.0), r"termination_probability must be in \(0, 1\], got 0.0"),
        ((8, 1.5, 1.0, 1.0), "1 / mean output length"),
        ((8, float("nan"), 1.0, 1.0), "termination_probability must be in"),
        ((8, 0.5, -1.0, 1.0), "alpha_p must be a finite number of at least 0, got -1.0"),
        ((8, 0.5, 1.0, float("nan")), "alpha_d must be a finite number"),
        ((8, 0.5, 1.0, 1.0, -1e-3), "beta_d must be a finite number"),
        ((8, 0.5, 1.0, 1.0, 0.0, "exact"), "per_completion must be one of expected, single_exit"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_threshold(*arguments)


def test_step_times_are_checked():
    with pytest.raises(ValueError, match="beta_p must be a finite number of at least 0, got -1"):
        StepTimes(1.0, -1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="cannot all be 0"):
        StepTimes(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="takes no time at all"):
        predicted_throughput(4, 0.5, StepTimes(0.0, 1.0, 0.0, 0.0), 0.0)


# -- asymptote -------------------------------------------------------------------------------------


def test_theta_solves_its_equation_from_1e_minus_12_to_1e6():
    ratio = np.geomspace(1e-12, 1e6, 400)
    theta = asymptotic_theta(ratio)
    # In y = theta/(1-theta) and 80-bit numbers, where the equation keeps its digits.
    y = theta.astype(np.longdouble) / (1 - theta.astype(np.longdouble))
    large = ratio > 1e-6
    np.testing.assert_allclose((y - np.log1p(y))[large], ratio[large], rtol=1e-9)
    small = np.sqrt(2 * ratio[~large])
    np.testing.assert_allclose(theta[~large], small - 2 * small**2 / 3, rtol=1e-5)
    assert (np.diff(theta) > 0).all()


def test_theta_at_its_ends():
    assert asymptotic_theta(0.0) == 0.0
    assert asymptotic_theta(np.inf) == 1.0
    with pytest.raises(ValueError, match="must be at least 0"):
        asymptotic_theta([-1.0])
    with pytest.raises(ValueError, match="must be at least 0"):
        asymptotic_theta(np.nan)


@MATHEMATICS
@given(st.integers(1, 4096), st.floats(1e-6, 1e3))
def test_k_star_lies_within_a_slot_and_a_half_of_theta_n(n_slots, ratio):
    k = optimal_threshold(n_slots, 1.0, ratio, 1.0)
    assert abs(k - float(asymptotic_theta(ratio)) * n_slots) <= 1.5


# -- tables ----------------------------------------------------------------------------------------


@MATHEMATICS
@given(slots, times, times, st.floats(1e-5, 0.1), st.floats(1.0, 9.0))
def test_the_table_looks_up_k_star(n_slots, alpha_p, alpha_d, p_min, factor):
    edges, thresholds = threshold_table(n_slots, alpha_p, alpha_d, p_min, p_min * factor)
    assert len(thresholds) == len(edges) + 1
    assert (np.diff(edges) > 0).all()
    for p in np.geomspace(p_min, p_min * factor, 17):
        found = thresholds[np.searchsorted(edges, p)]
        # At an edge itself rounding may fall on either side.
        if np.abs(edges / p - 1).min(initial=1.0) > 1e-12:
            assert found == optimal_threshold(n_slots, p, alpha_p, alpha_d)


@MATHEMATICS
@given(slots, times, times, times, st.floats(1e-4, 0.1), st.floats(1.0, 9.0))
def test_the_single_exit_table_looks_up_its_k_star(n, alpha_p, alpha_d, beta_d, p_min, factor):
    form = "single_exit"
    table = threshold_table(n, alpha_p, alpha_d, p_min, p_min * factor, beta_d, form)
    assert (np.diff(table[0]) > 0).all()
    for p in np.geomspace(p_min, p_min * factor, 5):
        if np.abs(table[0] / p - 1).min(initial=1.0) > 2e-4:
            k_star = optimal_threshold(n, p, alpha_p, alpha_d, beta_d, form)
            # What rises and falls again between two of the p that are looked at is not seen.
            assert abs(table[1][np.searchsorted(table[0], p)] - k_star) <= 1


def test_transition_points_are_where_k_star_steps():
    edges, above = transition_points(64, 12e-3, 6.5e-3)
    assert len(edges) > 30
    for p, k in zip(edges, above, strict=True):
        assert optimal_threshold(64, p * (1 - 1e-9), 12e-3, 6.5e-3) == k - 1
        assert optimal_threshold(64, min(p * (1 + 1e-9), 1.0), 12e-3, 6.5e-3) == k


def test_tables_without_a_transition():
    for alpha_p, alpha_d, k in ((0.0, 1.0, 1), (1.0, 0.0, 8), (0.0, 0.0, 1), (1e-300, 1.0, 1)):
        edges, thresholds = threshold_table(8, alpha_p, alpha_d, 1e-3, 1.0)
        assert edges.size == 0
        assert thresholds.tolist() == [k]
    assert threshold_table(1, 1.0, 1.0, 0.1, 0.2)[1].tolist() == [1]
    with pytest.raises(ValueError, match="p_min must not exceed p_max"):
        threshold_table(8, 1.0, 1.0, 0.2, 0.1)


def test_sensitivity_shows_what_matters_and_what_does_not():
    found = sensitivity(64, 0.01, StepTimes(0.01, 2e-5, 0.006, 2e-5), 100.0)
    k = optimal_threshold(64, 0.01, 0.01, 0.006)
    for name in ("beta_p", "beta_d", "mean_prompt_tokens"):
        assert set(found[name][1]) == {k}
    for name in ("alpha_p", "termination_probability", "n_slots"):
        assert (np.diff(found[name][1]) >= 0).all()
        assert found[name][1][0] < k < found[name][1][-1]
    assert (np.diff(found["alpha_d"][1]) <= 0).all()
    assert found["n_slots"][0].tolist() == sorted({round(x) for x in found["n_slots"][0]})
    with pytest.raises(ValueError, match="factor must be above 1"):
        sensitivity(64, 0.01, StepTimes(0.01, 0, 0.006, 0), 100.0, factor=1.0)
