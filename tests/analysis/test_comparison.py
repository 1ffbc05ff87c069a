"""The verdict's statistics against simulated sweeps whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdswitch.analysis.comparison import (
    LOOK,
    best_critical_value,
    compare_with_best,
    mean_absolute_percentage_error,
    mean_interval,
)

THRESHOLDS = [1, 2, 4, 8, 16]
TRUTH = np.array([9.0, 9.9, 10.0, 9.8, 9.0])


def sweep(random, blocks: int, noise, truth=TRUTH):
    drift = random.normal(0, 0.05, (blocks, 1))
    return truth * np.exp(drift + random.normal(0, noise, (blocks, truth.size)))


def true_regret(truth=TRUTH):
    return 1 - truth / truth.max()


@pytest.mark.parametrize("truth", [TRUTH, np.full(7, 10.0)], ids=["peaked", "flat"])
@pytest.mark.parametrize("blocks", [2, 5])
def test_intervals_cover_the_true_regret(blocks, truth):
    random = np.random.default_rng(blocks)
    grid, named, true = list(range(1, truth.size + 1)), 1, true_regret(truth)
    trials, high, low, best = 1000, 0, 0, 0
    for _ in range(trials):
        found = compare_with_best(grid, sweep(random, blocks, 0.02, truth))
        high += bool((true <= found.high + 1e-12).all())  # all k at once
        low += bool(found.low[named] <= true[named] + 1e-12)  # a k named before
        best += grid[int(truth.argmax())] in found.indifferent
    # 95 % asked for; four standard errors below is still more than 92 %.
    assert min(high, low, best) / trials >= 0.92


@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_noise_of_poor_thresholds_does_not_blur_the_good_ones(blocks):
    # As on a GPU: the first two are far below, and repeat twenty times worse.
    truth = np.array([8.6, 9.4, 9.88, 9.96, 10.0, 9.98, 9.96, 9.96, 9.97, 9.98, 9.90])
    noise = np.where(np.arange(truth.size) < 2, 0.03, 0.0015)
    random = np.random.default_rng(blocks)
    grid, named, true = list(range(1, truth.size + 1)), 5, true_regret(truth)
    trials, covered, best, widths = 500, 0, 0, []
    for _ in range(trials):
        found = compare_with_best(grid, sweep(random, blocks, noise, truth))
        covered += bool(found.low[named] <= true[named] + 1e-12 <= found.high[named] + 2e-12)
        best += 5 in found.indifferent
        widths.append(found.high[named] - found.low[named])
    assert min(covered, best) / trials >= 0.92
    # Pooled over all k, the noise alone would make it 3 to 4 %.
    assert np.median(widths) < 0.01


def test_held_out_regret_pays_for_no_luck_and_the_plain_one_does():
    random = np.random.default_rng(3)
    found = [
        compare_with_best([1, 2, 4, 8], sweep(random, 3, 0.02, np.full(4, 10.0)))
        for _ in range(150)
    ]
    plain = np.mean([one.regret[1] for one in found])
    held_out = np.mean([one.regret_held_out[1] for one in found])
    assert plain > 0.008
    assert abs(held_out) < 0.005


def test_the_indifference_set_holds_the_best_in_95_of_100_sweeps():
    random = np.random.default_rng(7)
    held = sum(
        4 in compare_with_best(THRESHOLDS, sweep(random, 3, 0.03)).indifferent for _ in range(300)
    )
    assert held / 300 >= 0.91


def test_clear_differences_are_told_apart():
    random = np.random.default_rng(1)
    found = compare_with_best(THRESHOLDS, sweep(random, 5, 0.001))
    assert found.k_hat == 4
    assert found.indifferent == [4]
    assert found.low[0] > 0.08


def test_drift_between_blocks_does_not_matter():
    random = np.random.default_rng(2)
    values = sweep(random, 4, 0.01)
    drifted = values * np.array([[1.0], [0.5], [3.0], [1.2]])
    a, b = compare_with_best(THRESHOLDS, values), compare_with_best(THRESHOLDS, drifted)
    np.testing.assert_allclose(a.regret, b.regret)
    np.testing.assert_allclose(a.high, b.high)


def test_one_block_gives_no_interval():
    found = compare_with_best(THRESHOLDS, TRUTH[None, :])
    assert found.low is None
    assert found.regret_held_out is None
    assert found.indifferent is None
    assert found.k_hat == 4
    np.testing.assert_allclose(found.regret, true_regret(), atol=1e-12)


def test_incomplete_blocks_are_left_out_and_no_complete_one_is_an_error():
    values = np.vstack([TRUTH, TRUTH, TRUTH])
    values[1, 2] = np.nan
    assert compare_with_best(THRESHOLDS, values).n_blocks == 2
    values[:, 2] = np.nan
    with pytest.raises(ValueError, match="no block has a valid run of every k"):
        compare_with_best(THRESHOLDS, values)


@settings(max_examples=25, deadline=None)
@given(
    truth=st.lists(st.floats(1, 100), min_size=2, max_size=6),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_units_do_not_matter_and_ends_are_ordered(truth, scale, seed):
    values = sweep(np.random.default_rng(seed), 3, 0.05, np.array(truth))
    k = list(range(1, len(truth) + 1))
    found, scaled = compare_with_best(k, values), compare_with_best(k, scale * values)
    np.testing.assert_allclose(found.regret, scaled.regret, atol=1e-9)
    assert (found.low <= found.regret + 1e-12).all()
    assert (found.regret <= found.high + 1e-12).all()
    assert found.k_hat in found.indifferent


def test_the_critical_value_is_dunnetts():
    # One comparison: Student's t. More: scipy's test at the critical value gives its level back.
    assert best_critical_value(2, 10) == pytest.approx(stats.t.ppf(LOOK, 10), abs=0.04)
    samples = [np.array([-1.0, 0.0, 1.0])] * 4  # variance 1, 8 degrees of freedom
    shift = best_critical_value(4, 8) * np.sqrt(2 / 3)
    found = stats.dunnett(
        samples[0] + shift, *samples[1:], control=samples[3], alternative="greater"
    )
    assert found.pvalue[0] == pytest.approx(1 - LOOK, abs=0.003)


def test_mape():
    assert mean_absolute_percentage_error([1.1, 0.9], [1.0, 1.0]) == pytest.approx(0.1)


class TestMeanInterval:
    @pytest.mark.parametrize("blocks", [2, 3, 4, 5])
    @pytest.mark.parametrize("count", [1, 4, 11])
    @pytest.mark.parametrize("between", [0.0, 0.002, 0.005, 0.03, 0.2])
    def test_covers_the_level_of_one_k_whatever_the_blocks_do(self, blocks, count, between):
        # Between the blocks as said, within one 0.005.
        random, trials, held = np.random.default_rng([blocks, count]), 1500, 0
        for _ in range(trials):
            drift = random.normal(0, between, (blocks, 1))
            logs = drift + random.normal(0, 0.005, (blocks, count))
            held += bool(abs(logs.mean(axis=0)[0]) <= mean_interval(logs))
        # 95 % at least; three standard errors below.
        assert held / trials >= 0.933

    def test_is_students_interval_for_one_k(self):
        logs = np.array([[0.1], [0.5], [0.3]])
        found = stats.t.interval(0.95, 2, scale=stats.sem(logs[:, 0]))
        assert mean_interval(logs) == pytest.approx(found[1])

    def test_pools_the_noise_where_blocks_do_not_differ(self):
        random = np.random.default_rng(0)
        pooled, alone = (
            np.median([mean_interval(random.normal(0, 0.01, (2, count))) for _ in range(400)])
            for count in (12, 1)
        )
        assert pooled < alone / 2

    def test_one_block_gives_none(self):
        assert np.isnan(mean_interval(np.zeros((1, 3))))
