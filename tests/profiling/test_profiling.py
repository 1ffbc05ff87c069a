"""Fits recover what made the data, and the profile's plan covers what it should."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdswitch.profiling.attribution import charge_refills
from pdswitch.profiling.design import decode_sizes, plan, plan_prefill
from pdswitch.profiling.fit import fit_decode, fit_prefill, fit_steps
from pdswitch.profiling.robust import fit_linear


def noisy(seconds, random, noise=0.01, outliers=0.0):
    values = seconds * np.exp(random.normal(0, noise, seconds.size))
    stalled = random.random(seconds.size) < outliers
    return np.where(stalled, values * 5, values)


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_the_straight_prefill_fit_survives_stalls(outliers):
    random = np.random.default_rng(0)
    tokens = np.geomspace(16, 2000, 200).round()
    seconds = noisy(0.02 + 2e-4 * tokens, random, outliers=outliers)
    fit = fit_prefill(tokens, seconds, None)["linear"]
    assert fit["alpha_p"] == pytest.approx(0.02, rel=0.03)
    assert fit["beta_p"] == pytest.approx(2e-4, rel=0.03)
    assert abs(fit["alpha_p"] - 0.02) < 4 * fit["se_alpha_p"] + 1e-4


def test_standard_errors_are_those_of_repeated_experiments():
    random = np.random.default_rng(1)
    tokens = np.geomspace(16, 2000, 60)
    fits = [
        fit_prefill(tokens, noisy(0.02 + 2e-4 * tokens, random, 0.05), None)["linear"]
        for _ in range(200)
    ]
    spread = np.std([fit["alpha_p"] for fit in fits])
    claimed = np.median([fit["se_alpha_p"] for fit in fits])
    assert claimed == pytest.approx(spread, rel=0.25)


def test_the_hinge_is_found_where_a_line_bends():
    random = np.random.default_rng(2)
    tokens = np.geomspace(16, 8000, 80)
    seconds = noisy(np.maximum(0.0095, 22e-6 * tokens), random)
    hinge = fit_prefill(tokens, seconds, None)["hinge"]
    assert hinge["floor_s"] == pytest.approx(0.0095, rel=0.03)
    assert hinge["rate_s_per_token"] == pytest.approx(22e-6, rel=0.03)
    assert hinge["hinge_tokens"] == pytest.approx(432, rel=0.1)


def test_the_intercept_depends_on_the_fitted_range_when_prefill_is_a_hinge():
    tokens = np.geomspace(16, 8000, 80)
    seconds = np.maximum(0.0095, 22e-6 * tokens)
    low = fit_prefill(tokens, seconds, (16, 400))["linear"]
    high = fit_prefill(tokens, seconds, (1000, 8000))["linear"]
    assert low["alpha_p"] == pytest.approx(0.0095, rel=1e-3)
    assert high["alpha_p"] == pytest.approx(0, abs=1e-6)
    assert low["token_range"] == [16, 400]


def test_a_range_with_too_few_samples_falls_back_to_all():
    tokens = np.array([10.0, 20, 30, 40])
    fit = fit_prefill(tokens, 1 + tokens, (100, 200))["linear"]
    assert fit["token_range"] == [10, 40]


def test_batch_size_and_context_come_apart():
    random = np.random.default_rng(3)
    active = np.tile(np.arange(1.0, 17), 30)
    context = active * np.repeat([32.0, 128.0, 64.0], 160)
    seconds = noisy(0.03 + 4e-4 * active + 2e-6 * context, random)
    fit = fit_decode(active, context, seconds)["context"]
    assert fit["alpha_d"] == pytest.approx(0.03, rel=0.02)
    assert fit["beta_d"] == pytest.approx(4e-4, rel=0.15)
    assert fit["gamma_d"] == pytest.approx(2e-6, rel=0.2)


def test_a_negative_intercept_is_told_and_the_line_still_goes_through_the_points():
    tokens = np.geomspace(1000, 8000, 24)
    seconds = noisy(22e-6 * tokens - 2e-3, np.random.default_rng(5))
    fit = fit_prefill(tokens, seconds, None)["linear"]
    assert fit["alpha_p"] == 0
    assert fit["alpha_p_unconstrained"] == pytest.approx(-2e-3, rel=0.2)
    # Clipped without a new fit, it would lie 4 % too high.
    assert abs(np.median(fit["beta_p"] * tokens / seconds) - 1) < 0.02


def test_the_hinge_is_found_among_stalls_and_noise():
    tokens = np.geomspace(16, 4096, 30)
    for seed in range(30):
        random = np.random.default_rng(seed)
        seconds = noisy(np.maximum(0.0095, 22e-6 * tokens), random, 0.03, outliers=0.1)
        hinge = fit_prefill(tokens, seconds, None)["hinge"]
        assert hinge["floor_s"] == pytest.approx(0.0095, rel=0.15)
        assert hinge["rate_s_per_token"] == pytest.approx(22e-6, rel=0.15)
        very_noisy = noisy(np.maximum(0.0095, 22e-6 * tokens), random, 0.3)
        assert fit_prefill(tokens, very_noisy, None)["hinge"]["rate_s_per_token"] > 0


def test_a_branch_without_samples_has_no_standard_error():
    tokens = np.geomspace(16, 400, 30)
    flat = fit_prefill(tokens, np.full(30, 0.01), None)["hinge"]
    assert flat["floor_s"] == pytest.approx(0.01)
    assert flat["se_floor_s"] is not None
    assert flat["se_offset_s"] is None
    assert flat["se_rate_s_per_token"] is None
    assert flat["hinge_tokens"] is None


def test_the_table_keeps_every_sample():
    tokens = np.array([16.0] * 10 + [32.0, 64.0])
    table = fit_prefill(tokens, 1e-3 * tokens, None)["table"]
    assert table["tokens"] == [16, 32, 64]
    assert table["n"] == [10, 1, 1]


def test_steps_of_one_run_do_not_count_as_independent():
    sizes = np.tile([1, 2, 3, 4, 6, 8], 3)
    active = np.repeat(sizes, 8).astype(float)
    run = np.repeat(np.arange(sizes.size), 8)
    fits = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        shared = np.repeat(random.normal(0, 0.03, sizes.size), 8)
        seconds = noisy((0.03 + 4e-4 * active) * np.exp(shared), random)
        fits.append(fit_decode(active, 64 * active, seconds, run)["linear"])
    spread = np.std([fit["alpha_d"] for fit in fits])
    claimed = np.median([fit["se_alpha_d"] for fit in fits])
    # Counting steps, it would claim a third of that.
    assert claimed == pytest.approx(spread, rel=0.25)


def test_too_few_points_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="2 coefficients cannot be fitted to 1 points"):
        fit_linear(np.ones((1, 2)), np.ones(1))


def steps(rows):
    frame = pd.DataFrame(
        rows, columns=["run", "kind", "prefill_tokens", "decode_requests", "duration_s"]
    )
    return frame.assign(step=frame.groupby("run").cumcount(), context_tokens=100)


def test_a_profile_without_decode_steps_is_refused():
    rows = [(i, "prefill", 100 * (i + 1), 0, 0.1 * (i + 1)) for i in range(5)]
    with pytest.raises(ValueError, match="no decode step"):
        fit_steps(steps(rows), 4)


def switching_run(overlap: bool, lateness_s: float = 0.009) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run of eight cycles as the device saw it, and as the record has it."""
    random = np.random.default_rng(3)
    rows = []
    for _ in range(8):
        rows.append({"prefill_tokens": 400, "decode_requests": 0, "device_s": 0.020})
        for active in range(16, 10, -1):
            context = int(active * random.integers(80, 120))
            seconds = 0.010 + 1e-4 * active + 1e-7 * context
            rows.append(
                {
                    "prefill_tokens": 0,
                    "decode_requests": active,
                    "context_tokens": context,
                    "device_s": seconds * np.exp(random.normal(0, 0.01)),
                }
            )
    device = pd.DataFrame(rows).fillna({"context_tokens": 0})
    before = (device["prefill_tokens"] > 0).shift(-1, fill_value=False)
    late = np.where(before, lateness_s, 0.0) if overlap else np.zeros(len(device))
    record = device.assign(
        duration_s=device["device_s"] + late - np.concatenate([[0.0], late[:-1]]),
        done_s=device["device_s"].cumsum() + late,
    )
    # One step behind: scheduled while the step before still runs.
    scheduled = record["done_s"].shift(2 if overlap else 1).fillna(0.0)
    return device, record.assign(schedule_s=scheduled)


def test_what_the_host_saw_late_is_charged_to_the_refill_and_sums_stay():
    device, record = switching_run(overlap=True)
    charged = charge_refills(record)
    assert charged["duration_s"].sum() == pytest.approx(record["duration_s"].sum())
    refills = device["prefill_tokens"] > 0
    refills.iloc[0] = False  # nothing came before the first
    wrong = (record["duration_s"] - device["device_s"])[refills]
    right = (charged["duration_s"] - device["device_s"])[refills]
    assert (wrong < -0.008).all()
    assert right.abs().max() < 0.0006
    others = ~refills & ~refills.shift(-1, fill_value=False)
    pd.testing.assert_series_equal(charged["duration_s"][others], record["duration_s"][others])


def test_nothing_is_charged_where_steps_do_not_overlap_or_too_little_is_known():
    _, record = switching_run(overlap=False)
    pd.testing.assert_frame_equal(charge_refills(record), record)
    _, record = switching_run(overlap=True)
    short = record.iloc[:10]
    pd.testing.assert_frame_equal(charge_refills(short), short)


@given(n_slots=st.integers(1, 2048))
def test_decode_sizes_reach_from_one_to_n(n_slots):
    sizes = decode_sizes(n_slots)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] == n_slots
    assert len(sizes) <= 16


@given(
    n_slots=st.integers(1, 256),
    samples=st.integers(3, 50),
    max_tokens=st.integers(2, 9000),
    max_prompt=st.integers(1, 4000),
)
def test_prefill_samples_fit_into_slots_and_context(n_slots, samples, max_tokens, max_prompt):
    runs = plan_prefill(samples, n_slots, max_tokens, max_prompt)
    assert len(runs) == samples
    for run in runs:
        assert 1 <= len(run.prompt_lengths) <= n_slots
        assert min(run.prompt_lengths) >= 1
        assert max(run.prompt_lengths) <= max_prompt
        assert sum(run.prompt_lengths) <= max_tokens


def test_the_plan_is_shuffled_by_its_seed_alone():
    first, again, other = (plan(10, 2, 8, 1000, 512, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)
