"""Repetition loops are found, ordinary text is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdswitch.analysis.degenerate import is_degenerate


@given(
    start=st.lists(st.integers(0, 50), max_size=50),
    loop=st.lists(st.integers(100, 200), min_size=1, max_size=12),
)
def test_a_loop_at_the_end_is_found_whatever_came_before(start, loop):
    assert is_degenerate(start + loop * 30)


def test_random_tokens_are_not_a_loop():
    random = np.random.default_rng(0)
    assert not any(is_degenerate(random.integers(0, 1000, 300).tolist()) for _ in range(100))


@pytest.mark.parametrize("tokens", [[], [1], [1] * 10, [1, 2, 3] * 5])
def test_a_short_repetition_is_ordinary(tokens):
    assert not is_degenerate(tokens)


def test_a_loop_that_was_left_again_is_ordinary():
    assert not is_degenerate([7] * 100 + list(range(30)))
