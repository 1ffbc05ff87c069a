import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.estimation.censored import estimate as estimate_censored
from pdswitch.estimation.ema_inverse import estimate as estimate_ema_inverse
from pdswitch.estimation.ema_length import estimate as estimate_ema_length
from pdswitch.estimation.lengths import Estimate
from pdswitch.estimation.mean import estimate as estimate_mean
from pdswitch.estimation.moments import ema_inverse_moments, ema_length_moments, window_moments
from pdswitch.estimation.survival import (
    geometric_ks_distance,
    hazard,
    kaplan_meier,
    wilson_interval,
)
from pdswitch.plugin.online_estimators import make_estimator

MATHEMATICS = settings(derandomize=True, max_examples=60, deadline=None)
DRAWS = 1_000


def samples(p, size, seed):
    return np.random.default_rng(seed).geometric(p, (DRAWS, size))


def assert_mean(values, expected):
    """The mean of the draws is the expected one within 3 standard errors."""
    values = np.asarray(values)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) <= 3 * error


@pytest.mark.parametrize(("p", "size"), [(1 / 128, 64), (0.05, 400), (0.5, 50)])
def test_mean_has_its_stated_bias_and_standard_error(p, size):
    found = [estimate_mean(sample) for sample in samples(p, size, 1)]
    values = np.array([e.termination_probability for e in found])
    assert_mean(values, p + p * (1 - p) / size)
    errors = np.array([e.standard_error for e in found])
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.1)


@pytest.mark.parametrize("limit", [3, 13, 60, 10_000])
def test_censored_stays_right_when_most_requests_are_cut(limit):
    p, size = 1 / 128, 2_000
    found = [
        estimate_censored(np.minimum(sample, limit), sample > limit)
        for sample in samples(p, size, 2)
    ]
    if limit == 13:
        assert (samples(p, size, 2) > limit).mean() == pytest.approx(0.9, abs=0.01)
    values = np.array([e.termination_probability for e in found])
    seen = 1 - (1 - p) ** limit
    completions = size * seen
    shrink = 1 - limit * p * (1 - p) ** (limit - 1) / seen
    assert_mean(values, p * (1 + (1 - p) / completions * shrink))
    errors = np.array([e.standard_error for e in found])
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.1)
    if limit == 13:
        naive = estimate_mean(np.minimum(samples(p, size, 2)[0], limit))
        assert naive.termination_probability > 9 * p


def test_without_a_cut_censored_is_the_mean():
    lengths = samples(0.05, 100, 3)[0]
    assert estimate_censored(lengths, np.zeros(100, bool)).termination_probability == pytest.approx(
        estimate_mean(lengths).termination_probability
    )


@pytest.mark.parametrize("smoothing", [0.05, 0.3, 1.0])
def test_the_moving_averages_have_their_stated_stationary_moments(smoothing):
    p = 1 / 64
    sequences = samples(p, 200, 4)
    for estimate, moments in (
        (estimate_ema_inverse, ema_inverse_moments),
        (estimate_ema_length, ema_length_moments),
    ):
        values = np.array([estimate(s, smoothing).termination_probability for s in sequences])
        mean, deviation = moments(p, smoothing)
        assert_mean(values, mean)
        assert values.std(ddof=1) == pytest.approx(deviation, rel=0.12)


def test_the_stated_approximations_of_the_biases():
    p = 1 / 128
    mean, deviation = ema_inverse_moments(p, 0.3)
    assert mean / p == pytest.approx(4.9, abs=0.05)
    v = 0.3 / 1.7 * (1 - p)
    mean, deviation = ema_length_moments(p, 0.3)
    assert mean / p == pytest.approx(1 + v, rel=0.02)
    assert mean / p == pytest.approx(1.19, abs=0.005)
    mean, deviation = ema_length_moments(p, 0.001)
    small = 0.001 / 1.999 * (1 - p)
    assert mean / p == pytest.approx(1 + small, rel=1e-4)
    assert deviation / p == pytest.approx(np.sqrt(small), rel=1e-2)


@MATHEMATICS
@given(st.floats(1e-5, 0.99), st.floats(0.01, 1.0))
def test_the_quadrature_of_ema_length_has_the_right_first_moment(p, smoothing):
    # At smoothing 1 the average is the last length, and E[1/L] and E[1/L²] are known.
    mean, _ = ema_length_moments(p, 1.0)
    assert mean == pytest.approx(ema_inverse_moments(p, 1.0)[0], rel=1e-6)
    smoothed, deviation = ema_length_moments(p, smoothing)
    assert p * (1 - 1e-6) <= smoothed <= mean * (1 + 1e-6)
    assert 0.0 <= deviation <= ema_length_moments(p, 1.0)[1] * (1 + 1e-6)


@pytest.mark.parametrize("name", ["ema_inverse", "ema_length"])
def test_the_online_estimators_are_the_same(name):
    lengths = samples(0.05, 50, 5)[0]
    online = make_estimator(name, smoothing=0.3, window=1, initial_probability=None)
    for length in lengths:
        online.observe(int(length))
    offline = {"ema_inverse": estimate_ema_inverse, "ema_length": estimate_ema_length}[name]
    found = offline(lengths, 0.3)
    assert found.termination_probability == pytest.approx(online.probability)
    assert (found.method, found.n) == (name, 50)


@pytest.mark.parametrize(("p", "window"), [(1 / 128, 64), (0.05, 16), (0.5, 8), (0.02, 1)])
def test_the_window_has_its_stated_moments(p, window):
    values = window / samples(p, window, 11).sum(axis=1)
    mean, deviation = window_moments(p, window)
    assert_mean(values, mean)
    # Heavy right tails of small windows make the deviation itself uncertain.
    assert values.std(ddof=1) == pytest.approx(deviation, rel=0.15)
    if window >= 16:
        assert mean == pytest.approx(p * (1 + (1 - p) / window), rel=0.01)
        assert deviation == pytest.approx(p * np.sqrt((1 - p) / window), rel=3 / window)


def test_a_window_of_one_is_a_moving_average_without_memory():
    assert window_moments(0.05, 1) == pytest.approx(ema_length_moments(0.05, 1.0))


def served(p, slots, completions, random):
    """Output lengths and tokens in progress at each completion: slots that are never empty."""
    held = np.zeros(slots, dtype=int)
    while completions:
        for slot in range(slots):
            held[slot] += 1
            if random.random() < p:
                length, held[slot] = int(held[slot]), 0
                yield length, int(held.sum())
                completions -= 1


def test_completions_per_token_has_the_moments_of_the_window():
    # Tokens are trials whoever they belong to: its law is that of the window of lengths.
    p, window, interval = 1 / 16, 32, 16
    online = make_estimator(
        "completions_per_token", smoothing=0.3, window=window, initial_probability=None
    )
    found = []
    events = served(p, 8, 64 * DRAWS, np.random.default_rng(13))
    for count, (length, in_progress) in enumerate(events, start=1):
        online.observe(length)
        if count % interval == 0:
            value = online.look_up(lambda held=in_progress: held)
            # Windows that do not overlap are independent.
            if count % window == 0:
                found.append(value)
    mean, deviation = window_moments(p, window)
    assert_mean(found, mean)
    assert np.std(found) == pytest.approx(deviation, rel=0.05)


def test_a_single_length():
    assert estimate_mean([4]) == Estimate(0.25, 0.25 * np.sqrt(0.75), "mean", 1)
    assert estimate_censored([4], [False]).termination_probability == 0.25
    assert estimate_ema_inverse([4], 0.3) == Estimate(0.25, 0.25, "ema_inverse", 1)
    assert estimate_ema_length([4], 0.3) == Estimate(0.25, 0.25, "ema_length", 1)


def test_lengths_of_one_token():
    for found in (estimate_mean([1, 1, 1]), estimate_censored([1, 1], [False, False])):
        assert found.termination_probability == 1.0
        assert found.standard_error == 0.0
    assert ema_inverse_moments(1.0, 0.3) == window_moments(1.0, 8) == (1.0, 0.0)
    assert ema_length_moments(1.0, 0.3) == (1.0, 0.0)
    assert geometric_ks_distance([1, 1, 1]) == 0.0


# -- hazard ----------------------------------------------------------------------------------------


def test_the_hazard_of_the_geometric_law_is_flat():
    p = 0.02
    covered = []
    for sample in samples(p, 500, 6)[:100]:
        found = hazard(np.minimum(sample, 60), sample > 60, bins=8)
        covered += list((found.low <= p) & (p <= found.high))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_the_hazard_counts_endings_per_token():
    found = hazard([1, 2, 2, 4], [False, False, True, False], bins=3)
    # Trials at ages 1; 2; 3 and 4: 4 tokens with 1 ending, 3 with 1, 2 with 1.
    np.testing.assert_allclose(found.age, [1.0, 2.0, 3.5])
    np.testing.assert_allclose(found.hazard, [1 / 4, 1 / 3, 1 / 2])
    assert (found.low < found.hazard).all()
    assert (found.hazard < found.high).all()


def test_the_hazard_rises_and_falls_with_the_law():
    rng = np.random.default_rng(7)
    rising = hazard(np.ceil(100 * rng.weibull(3.0, 5_000)).astype(int)).hazard
    falling = hazard(np.ceil(100 * rng.weibull(0.5, 5_000)).astype(int)).hazard
    assert rising[-1] > 3 * rising[0]
    assert falling[0] > 3 * falling[-1]


def test_the_hazard_of_requests_that_were_all_cut_is_zero():
    found = hazard([8, 8, 8], [True, True, True])
    assert found.hazard.tolist() == [0.0]
    assert found.low.tolist() == [0.0]
    assert 0.1 < found.high[0] < 0.2


def test_wilson_holds_at_the_ends():
    low, high = wilson_interval([0, 10], [10, 10])
    np.testing.assert_allclose([low[0], high[1]], [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose([high[0], low[1]], [0.2775, 0.7225], atol=1e-4)


# -- goodness of fit -------------------------------------------------------------------------------


def brute_force_distance(lengths):
    p = 1 / np.mean(lengths)
    ages = np.arange(0, max(lengths) + 1)
    empirical = (np.asarray(lengths)[:, None] <= ages).mean(axis=0)
    return np.abs(empirical - (1 - (1 - p) ** ages)).max()


@MATHEMATICS
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_the_distance_is_the_largest_gap_at_any_age(lengths):
    assert geometric_ks_distance(lengths) == pytest.approx(brute_force_distance(lengths), abs=1e-12)


def test_the_distance_is_small_for_the_law_itself_even_when_cut():
    sample = samples(0.02, 5_000, 8)[0]
    assert geometric_ks_distance(sample) < 0.025
    assert geometric_ks_distance(np.minimum(sample, 20), sample > 20) < 0.025
    uniform = np.random.default_rng(9).integers(50, 100, 5_000)
    assert geometric_ks_distance(uniform) > 0.4


def test_kaplan_meier_by_hand():
    # 5 at risk at age 2, one ends; one is cut at 2 after its trial; 3 at risk at 4, two end.
    ages, survival = kaplan_meier([2, 2, 4, 4, 6], [False, True, False, False, True])
    assert ages.tolist() == [2, 4]
    np.testing.assert_allclose(survival, [4 / 5, 4 / 5 * 1 / 3])


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimate",
    [
        estimate_mean,
        lambda lengths: estimate_censored(lengths, np.zeros(len(lengths), bool)),
        lambda lengths: estimate_ema_inverse(lengths, 0.3),
        lambda lengths: estimate_ema_length(lengths, 0.3),
        hazard,
        geometric_ks_distance,
    ],
)
def test_bad_lengths_say_what_is_wrong(estimate):
    with pytest.raises(ValueError, match="at least one output length, got none"):
        estimate([])
    for bad in ([0], [-3], [float("nan")], [2.5], [float("inf")]):
        with pytest.raises(ValueError, match="whole number of at least 1 token"):
            estimate(bad)


def test_other_bad_input():
    with pytest.raises(ValueError, match=r"all 2 requests were cut .* raise max_output_tokens"):
        estimate_censored([8, 8], [True, True])
    with pytest.raises(ValueError, match="one value per length, got 1 for 2 lengths"):
        estimate_censored([8, 8], [True])
    with pytest.raises(ValueError, match=r"smoothing must be in \(0, 1\], got 0"):
        estimate_ema_length([3], 0.0)
    with pytest.raises(ValueError, match="smoothing must be in"):
        ema_inverse_moments(0.5, float("nan"))
    with pytest.raises(ValueError, match="termination_probability must be in"):
        ema_length_moments(0.0, 0.3)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        window_moments(0.5, 0)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        hazard([3], bins=0)
