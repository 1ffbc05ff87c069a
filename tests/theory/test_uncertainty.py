import numpy as np
import pytest

from pdswitch.theory import (
    StepTimes,
    bootstrap_thresholds,
    corrected_throughput,
    optimal_threshold,
    threshold_distribution,
    threshold_standard_error,
    throughput_band,
)

EXAMPLE = StepTimes(12e-3, 2e-5, 6.5e-3, 2e-5)
P = 1 / 128


def test_every_draw_is_the_k_star_of_its_parameters():
    from pdswitch.theory.uncertainty import thresholds_of

    rng = np.random.default_rng(0)
    p, alpha_p, alpha_d = rng.uniform(1e-3, 1, 200), rng.uniform(0, 1, 200), rng.uniform(0, 1, 200)
    alpha_p[:5], alpha_d[3:8] = 0.0, 0.0
    expected = [
        optimal_threshold(64, *parameters) for parameters in zip(p, alpha_p, alpha_d, strict=True)
    ]
    assert thresholds_of(64, p, alpha_p, alpha_d).tolist() == expected


def test_certain_parameters_have_one_k_star():
    found = threshold_distribution(256, P, 0.0, 12e-3, 6.5e-3)
    assert set(found.samples) == {39}
    assert found.interval() == (39, 39)
    assert threshold_standard_error(256, P, 0.0, 12e-3, 6.5e-3) == 0.0


def test_the_delta_method_is_the_spread_of_the_draws_while_it_is_small():
    covariance = [[2.5e-7, 5e-8], [5e-8, 4e-8]]
    arguments = (4096, P, 2e-4, 12e-3, 6.5e-3, covariance)
    found = threshold_distribution(*arguments, draws=20_000)
    assert found.samples.std() == pytest.approx(threshold_standard_error(*arguments), rel=0.05)


def test_correlated_errors_cancel_in_the_ratio():
    def error(correlation):
        a, b = 0.1 * 12e-3, 0.1 * 6.5e-3
        covariance = [[a * a, correlation * a * b], [correlation * a * b, b * b]]
        return threshold_standard_error(256, P, 0.0, 12e-3, 6.5e-3, covariance)

    assert error(1.0) < 1e-6 < error(0.0) < error(-1.0)


def test_the_interval_covers_the_true_k_star():
    # Estimates of p from 400 lengths each; the interval should hold the true k* in 95 % of cases.
    rng = np.random.default_rng(1)
    true = optimal_threshold(256, P, 12e-3, 6.5e-3)
    covered = 0
    for trial in range(300):
        lengths = rng.geometric(P, 400)
        p = 1 / lengths.mean()
        error = p**2 * lengths.std(ddof=1) / 20
        low, high = threshold_distribution(
            256, p, error, 12e-3, 6.5e-3, draws=500, seed=trial
        ).interval()
        covered += low <= true <= high
    # k* is whole: rounding only widens the interval.
    assert covered / 300 >= 0.93


def test_the_bootstrap_agrees_with_the_draws_from_the_fit():
    rng = np.random.default_rng(2)
    lengths = rng.geometric(P, 500)
    tokens = rng.integers(128, 8000, 60)
    prefill = 12e-3 + 2e-5 * tokens + rng.normal(0, 1e-3, 60)
    requests = np.repeat([1, 8, 32, 64, 128, 256], 10)
    decode = 6.5e-3 + 2e-5 * requests + rng.normal(0, 3e-4, 60)
    found = bootstrap_thresholds(256, lengths, tokens, prefill, requests, decode, draws=4_000)

    def intercept(x, y):
        coefficients, covariance = np.polyfit(x, y, 1, cov=True)
        return coefficients[1], covariance[1, 1]

    (alpha_p, var_p), (alpha_d, var_d) = intercept(tokens, prefill), intercept(requests, decode)
    p = 1 / lengths.mean()
    error = p**2 * lengths.std(ddof=1) / np.sqrt(500)
    drawn = threshold_distribution(256, p, error, alpha_p, alpha_d, np.diag([var_p, var_d]))
    assert abs(np.median(found.samples) - np.median(drawn.samples)) <= 1
    assert found.samples.std() == pytest.approx(drawn.samples.std(), rel=0.15)


def test_the_bootstrap_draws_in_blocks_without_a_seam(monkeypatch):
    from pdswitch.theory import uncertainty

    data = ([3, 4, 9], [1, 2, 3], [0.1, 0.2, 0.31], [1, 2, 3], [0.1, 0.11, 0.12])
    monkeypatch.setattr(uncertainty, "_BLOCK", 7)
    assert len(bootstrap_thresholds(8, *data, draws=11).samples) == 11


def test_the_band_holds_the_curve_and_widens_with_uncertainty():
    curve = corrected_throughput(64, 0.02, EXAMPLE, 128)
    low, high = throughput_band(64, 0.02, 0.0, EXAMPLE, 128)
    np.testing.assert_allclose(low, curve, rtol=1e-4)
    np.testing.assert_allclose(high, curve, rtol=1e-4)
    covariance = np.diag([1e-6, 1e-12, 1e-7, 1e-12])
    low, high = throughput_band(64, 0.02, 1e-3, EXAMPLE, 128, covariance)
    assert (low < curve).all()
    assert (curve < high).all()
    wide_low, wide_high = throughput_band(64, 0.02, 4e-3, EXAMPLE, 128, covariance)
    assert ((wide_high - wide_low)[5:] > (high - low)[5:]).all()


def test_the_band_is_that_of_the_corrected_curve():
    # Against corrected curves of drawn parameters themselves.
    rng = np.random.default_rng(3)
    drawn = [
        corrected_throughput(64, 0.02 * np.exp(0.05 * z), EXAMPLE, 128)
        for z in rng.standard_normal(3_000)
    ]
    expected = np.quantile(drawn, [0.025, 0.975], axis=0)
    band = throughput_band(64, 0.02, 1e-3, EXAMPLE, 128)
    np.testing.assert_allclose(band, expected, rtol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: threshold_distribution(8, 0.1, -1.0, 1.0, 1.0),
            "p_standard_error must be a finite",
        ),
        (
            lambda: threshold_distribution(8, 0.0, 0.0, 1.0, 1.0),
            "termination_probability must be in",
        ),
        (
            lambda: threshold_distribution(8, 0.1, 0.0, 1.0, 1.0, draws=0),
            "draws must be at least 1",
        ),
        (lambda: threshold_distribution(8, 0.1, 0.0, 1.0, 1.0, [[1.0]]), "finite 2 by 2 matrix"),
        (
            lambda: threshold_distribution(8, 0.1, 0.0, 1.0, 1.0, [[-1.0, 0.0], [0.0, 1.0]]),
            "no negative eigenvalue",
        ),
        (
            lambda: bootstrap_thresholds(8, [], [1, 2], [1, 2], [1, 2], [1, 2]),
            "at least one output",
        ),
        (lambda: bootstrap_thresholds(8, [3], [1, 1], [1, 2], [1, 2], [1, 2]), "prefill fit needs"),
        (lambda: bootstrap_thresholds(8, [3], [1, 2], [1, 2], [1, 2], [1]), "decode fit needs"),
        (
            lambda: bootstrap_thresholds(8, [3], [1, 2], [1, np.nan], [1, 2], [1, 2]),
            "prefill steps must have finite",
        ),
    ],
)
def test_bad_arguments_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_time_of_zero_has_no_relative_error():
    assert threshold_standard_error(8, 0.1, 0.01, 0.0, 1.0) == float("inf")
    assert set(threshold_distribution(8, 0.1, 0.01, 0.0, 1.0).samples) == {1}
