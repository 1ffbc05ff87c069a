"""Which thresholds are measured."""

from hypothesis import given
from hypothesis import strategies as st

from pdswitch.analysis.grid import k_grid


def test_small_n_takes_odd_thresholds_k_star_one_and_n():
    assert k_grid("reference", 8, 2) == [1, 2, 3, 5, 7, 8]


def test_large_n_is_dense_around_k_star():
    grid = k_grid("reference", 100, 20)
    assert set(range(10, 41, 2)) <= set(grid)
    assert {1, 5, 20, 45, 50, 95, 100} <= set(grid)
    assert 12 in grid
    assert 13 not in grid
    assert 46 not in grid


def test_a_coarse_grid_is_quarters_and_k_star():
    assert k_grid("coarse", 16, 5) == [1, 4, 5, 8, 16]
    assert k_grid("coarse", 2, 1) == [1, 2]
    assert k_grid("coarse", 1, 1) == [1]


@given(n_slots=st.integers(1, 300), data=st.data())
def test_every_grid_holds_k_star_and_stays_in_range(n_slots, data):
    k_star = data.draw(st.integers(1, n_slots))
    for wanted in ("reference", "coarse", "all", [1]):
        grid = k_grid(wanted, n_slots, k_star)
        assert grid == sorted(set(grid))
        assert k_star in grid
        assert 1 in grid
        assert grid[-1] <= n_slots
    assert k_grid("all", n_slots, k_star) == list(range(1, n_slots + 1))


@given(n_slots=st.integers(1, 300), data=st.data())
def test_what_is_known_before_k_star_is_measured_whatever_k_star_is(n_slots, data):
    k_star = data.draw(st.integers(1, n_slots))
    wanted = data.draw(st.sampled_from(["reference", "coarse", "all", [1, n_slots]]))
    assert set(k_grid(wanted, n_slots)) <= set(k_grid(wanted, n_slots, k_star))


def test_a_grid_that_the_config_fixes_is_known_but_for_k_star():
    assert k_grid([2, 7], 8) == [2, 7]
    assert k_grid("all", 3) == [1, 2, 3]
    assert k_grid("coarse", 16) == [1, 4, 8, 16]
    assert k_grid("reference", 6) == [1, 3, 5, 6]
    assert k_grid("reference", 100) == [1, 100]
