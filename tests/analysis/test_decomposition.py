"""The sources of the prediction's error, each made alone."""

import numpy as np
import pandas as pd
import pytest

from pdswitch.analysis.decomposition import SOURCES, decompose, step_times_of, whole_numbers_of_mean
from pdswitch.theory import corrected_throughput
from synthetic_runs import N_SLOTS, TIMES, P, records_of

COUNT = 400
K = 3


def requests_of(lengths):
    return pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(len(lengths))],
            "prompt_tokens": 50,
            "output_tokens": lengths,
        }
    )


def theory_of(p=P, alpha_p=TIMES.alpha_p):
    timing = {
        "prefill": {"linear": {"alpha_p": alpha_p, "beta_p": TIMES.beta_p}},
        "decode": {"linear": {"alpha_d": TIMES.alpha_d, "beta_d": TIMES.beta_d}},
    }
    curve = corrected_throughput(N_SLOTS, p, step_times_of(timing), 50)
    return {
        "n_slots": N_SLOTS,
        "termination_probability": p,
        "mean_prompt_tokens": 50,
        "timing": timing,
        "predicted": {"corrected": curve.tolist()},
    }


def terms_of(lengths, **theory):
    steps, requests, facts = records_of(requests_of(lengths), K)
    return decompose(theory_of(**theory), facts, steps, requests)


@pytest.fixture(scope="module")
def geometric():
    """Lengths at the quantiles of the geometric law, shuffled: no luck in their mean."""
    quantiles = (np.arange(COUNT) + 0.5) / COUNT
    lengths = np.ceil(np.log1p(-quantiles) / np.log1p(-P)).astype(int)
    return np.random.default_rng(0).permutation(lengths)


def test_all_is_small_where_the_model_holds(geometric):
    terms = terms_of(geometric)
    assert set(terms) == {*SOURCES, "total"}
    assert terms["total"] == pytest.approx(sum(terms[name] for name in SOURCES))
    for name in ("policy_model", "mean_lengths", "scheduling", "step_times", "outside_steps"):
        assert abs(terms[name]) < 0.015
    # The last requests leave slots empty.
    assert -0.1 < terms["ramp_and_drain"] < -0.01


@pytest.mark.parametrize(
    ("theory", "source", "sign"),
    [({"p": 1.3 * P}, "mean_lengths", -1), ({"alpha_p": 2 * TIMES.alpha_p}, "step_times", 1)],
)
def test_a_wrong_parameter_shows_in_its_own_term(geometric, theory, source, sign):
    right, wrong = terms_of(geometric), terms_of(geometric, **theory)
    moved = {name: wrong[name] - right[name] for name in SOURCES}
    assert sign * moved[source] > 0.05
    assert all(abs(moved[name]) < 0.03 for name in SOURCES if name != source)


def test_equal_lengths_show_in_the_length_law(geometric):
    # All slots of a refill end together: a different law with the same mean.
    terms = terms_of(np.full(COUNT, round(geometric.mean())))
    assert terms["length_law"] > 0.1
    assert abs(terms["mean_lengths"]) < 0.03


def test_time_outside_steps_is_told_from_slow_steps(geometric):
    steps, requests, facts = records_of(requests_of(geometric), K)
    slow = steps.assign(duration_s=1.1 * steps["duration_s"], done_s=1.1 * steps["done_s"])
    assert decompose(theory_of(), facts, slow, requests)["step_times"] == pytest.approx(
        -np.log(1.1), abs=1e-6
    )
    late = steps.assign(done_s=1.1 * steps["done_s"])
    assert decompose(theory_of(), facts, late, requests)["outside_steps"] == pytest.approx(
        -np.log(1.1), abs=1e-6
    )


@pytest.mark.parametrize("mean", [1, 47.3, 60.0])
def test_whole_prompts_keep_their_mean(mean):
    numbers = whole_numbers_of_mean(mean, 1000)
    assert numbers.mean() == pytest.approx(mean, abs=1e-3)
    assert set(numbers) <= {int(mean), int(mean) + 1}
