import math

import numpy as np
import pytest

from pdswitch.simulation import geometric_lengths, simulate
from pdswitch.theory import (
    StepTimes,
    memory_safe_slots,
    optimal_threshold,
)
from pdswitch.theory.peak import refill_need

ALPHA_P, ALPHA_D = 12e-3, 6.5e-3
TIMES = StepTimes(ALPHA_P, 0.0, ALPHA_D, 0.0)


def prompts_of(mean, variance, count, seed):
    """Gamma-shaped prompts with this mean and variance, in whole tokens."""
    if variance == 0:
        return np.full(count, mean)
    rng = np.random.default_rng(seed)
    drawn = rng.gamma(mean**2 / variance, variance / mean, count)
    return np.maximum(np.rint(drawn), 1).astype(int)


def over_budget(n_slots, p, mean, variance, budget, count):
    """The simulated chance that a cycle's peak passes the budget, under the k* of n_slots."""
    k = optimal_threshold(n_slots, p, ALPHA_P, ALPHA_D)
    output = geometric_lengths(p, count, 1)
    result = simulate(output, prompts_of(mean, variance, count, 2), n_slots, k, TIMES)
    return result.over_budget_probability(budget, after_s=20 / p * ALPHA_D)


def assert_safe_and_tight(p, mean, cv, tolerance, slots, count):
    variance = (cv * mean) ** 2
    # A budget that would hold about so many slots on average.
    budget = slots * (mean + 1 / p)
    found = memory_safe_slots(budget, p, ALPHA_P, ALPHA_D, mean, variance, tolerance)
    assert over_budget(found.n_slots, p, mean, variance, budget, count) <= tolerance
    # At most 5 % or one slot is given away.
    more = max(math.floor(found.n_slots * 1.05) + 1, found.n_slots + 2)
    assert over_budget(more, p, mean, variance, budget, count) > tolerance


@pytest.mark.parametrize(
    ("p", "mean", "cv", "tolerance", "slots"),
    [
        (1 / 32, 32, 0.0, 0.05, 128),
        (1 / 32, 256, 1.0, 0.05, 24),
        (1 / 128, 32, 0.0, 0.05, 128),
        (1 / 128, 256, 1.0, 0.01, 24),
        (1 / 128, 2048, 0.0, 0.05, 128),
        (1 / 128, 2048, 1.0, 0.05, 24),
    ],
)
def test_the_peak_stays_within_the_budget_and_few_slots_are_given_away(
    p, mean, cv, tolerance, slots
):
    assert_safe_and_tight(p, mean, cv, tolerance, slots, 600_000)


@pytest.mark.rare
@pytest.mark.parametrize("slots", [24, 128, 600])
@pytest.mark.parametrize("tolerance", [0.05, 0.01])
@pytest.mark.parametrize("cv", [0.0, 1.0])
@pytest.mark.parametrize("mean", [32, 256, 2048])
@pytest.mark.parametrize("p", [1 / 32, 1 / 128, 1 / 512])
def test_the_bound_over_the_whole_grid(p, mean, cv, tolerance, slots):
    assert_safe_and_tight(p, mean, cv, tolerance, slots, 3_000_000)


def test_the_published_bound_is_passed_far_too_often():
    p, mean = 1 / 128, 512
    variance = mean**2
    budget = 300 * (mean + 1 / p)
    found = memory_safe_slots(budget, p, ALPHA_P, ALPHA_D, mean, variance, 0.05, bound="published")
    assert found.kappa == pytest.approx(1 / (p * p * mean))
    assert 0.35 < over_budget(found.n_slots, p, mean, variance, budget, 400_000) < 0.65


def test_the_need_after_a_refill_has_the_simulated_moments():
    n_slots, k, p = 64, 12, 1 / 64
    prompts = prompts_of(100, 2500, 400_000, 4)
    result = simulate(geometric_lengths(p, 400_000, 3), prompts, n_slots, k, TIMES, record=True)
    steps = result.steps_frame()
    refills = steps[(steps["prefill_tokens"] > 0)].iloc[200:-200]
    held = refills["context_tokens"] + refills["prefill_tokens"]
    need = refill_need(n_slots, k, p, prompts.mean(), prompts.var())
    assert held.mean() == pytest.approx(need.mean, rel=0.005)
    assert held.std() == pytest.approx(math.sqrt(need.variance), rel=0.05)
    assert refills["admitted"].mean() == pytest.approx(need.refilled, rel=0.01)


def test_budget_utilisation_and_the_order_of_the_bounds():
    found = memory_safe_slots(200_000, 1 / 128, ALPHA_P, ALPHA_D, 512, 1e5, 0.05)
    assert found.n_slots < found.n_expected <= found.n_static
    assert found.threshold == optimal_threshold(found.n_slots, 1 / 128, ALPHA_P, ALPHA_D)
    assert found.theta == found.threshold / found.n_slots
    mean = found.n_slots * found.mean_request_tokens
    assert found.utilisation == pytest.approx(mean / 200_000)
    assert found.margin_tokens == pytest.approx(200_000 - mean)
    stricter = memory_safe_slots(200_000, 1 / 128, ALPHA_P, ALPHA_D, 512, 1e5, 0.001)
    assert stricter.n_slots < found.n_slots
    steadier = memory_safe_slots(200_000, 1 / 128, ALPHA_P, ALPHA_D, 512, 0.0, 0.05)
    assert steadier.n_slots > found.n_slots


def test_outputs_of_one_token_hold_nothing_but_their_prompts():
    found = memory_safe_slots(5_000, 1.0, ALPHA_P, ALPHA_D, 512)
    assert (found.n_slots, found.mean_request_tokens, found.kappa) == (9, 512.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_tokens": 300}, "a KV budget of 300 tokens holds no request: one needs"),
        ({"budget_tokens": 0}, "budget_tokens must be a finite number above 0"),
        ({"termination_probability": 0.0}, "termination_probability must be in"),
        ({"mean_prompt_tokens": 0}, "mean_prompt_tokens must be a finite number above 0"),
        ({"variance_prompt_tokens": -1}, "variance_prompt_tokens must be a finite number"),
        ({"oom_tolerance": 0.0}, r"oom_tolerance must be in \(0, 1\), got 0.0"),
        ({"oom_tolerance": 1.0}, "oom_tolerance must be in"),
        ({"bound": "exact"}, "bound must be normal or published, got 'exact'"),
    ],
)
def test_bad_arguments_say_what_is_wrong(options, message):
    arguments = {
        "budget_tokens": 1e5,
        "termination_probability": 1 / 128,
        "alpha_p": ALPHA_P,
        "alpha_d": ALPHA_D,
        "mean_prompt_tokens": 512,
    }
    with pytest.raises(ValueError, match=message):
        memory_safe_slots(**(arguments | options))
