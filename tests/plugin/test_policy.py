"""The policy's decisions and its online form, without vLLM."""

from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdswitch.plugin.online_estimators import EstimatorName, make_estimator
from pdswitch.plugin.policy import Controller, Policy, ThresholdTable

slots = st.integers(1, 300)


@given(threshold=slots, free=st.integers(0, 300), waiting=st.integers(1, 300), running=slots)
def test_fixed_refills_exactly_at_k_free_slots(threshold, free, waiting, running):
    policy = Policy(kind="fixed", threshold=threshold, drain="strict")
    cause = policy.refill_cause(threshold, free, waiting, running)
    assert cause == ("threshold" if free >= threshold and free > 0 else None)


@given(threshold=slots, free=st.integers(1, 300), waiting=st.integers(1, 300), running=slots)
def test_eager_drain_refills_when_all_that_wait_fit(threshold, free, waiting, running):
    policy = Policy(kind="fixed", threshold=threshold, drain="eager")
    cause = policy.refill_cause(threshold, free, waiting, running)
    assert (cause is not None) == (free >= min(threshold, waiting))
    assert (cause == "drain") == (waiting <= free < threshold)


@pytest.mark.parametrize("drain", ["eager", "strict"])
def test_an_idle_engine_always_refills_and_nothing_to_admit_never(drain):
    policy = Policy(kind="fixed", threshold=8, drain=drain, max_hold_s=0.1)
    assert policy.refill_cause(8, free=8, waiting=1, running=0) == "idle"
    assert policy.refill_cause(8, free=8, waiting=0, running=0, waited_s=9.0) is None
    assert policy.refill_cause(1, free=0, waiting=5, running=8, waited_s=9.0) is None


@given(
    threshold=slots,
    free=st.integers(1, 300),
    waiting=st.integers(1, 300),
    running=slots,
    waited=st.floats(0, 10),
)
def test_the_guard_refills_at_any_free_slot_once_a_request_has_waited(
    threshold, free, waiting, running, waited
):
    plain = Policy(kind="fixed", threshold=threshold)
    guarded = Policy(kind="fixed", threshold=threshold, max_hold_s=2.0)
    state = (threshold, free, waiting, running, waited)
    due = plain.refill_cause(*state)
    forced = "max_hold" if waited >= 2.0 else None
    # It only adds refills, and only those count as forced.
    assert guarded.refill_cause(*state) == (due or forced)


@given(
    edges=st.lists(st.floats(1e-6, 0.99), min_size=0, max_size=20, unique=True).map(sorted),
    p=st.floats(1e-7, 1.0),
)
def test_table_lookup_equals_searchsorted(edges, p):
    table = ThresholdTable(edges, list(range(1, len(edges) + 2)))
    assert table.lookup(p) == 1 + np.searchsorted(edges, p)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"threshold": 0}, "threshold must be from 1 to 2147483647, got 0"),
        ({"window": 0}, "window must be from 1 to 100000, got 0"),
        ({"max_hold_s": 0.0}, "max_hold_s must be above 0, got 0.0; leave it out"),
        ({"update_interval": 0}, "update_interval must be from 1 to 2147483647, got 0"),
        ({"smoothing": 0.0}, r"smoothing must be in \(0, 1\], got 0.0"),
        ({"initial_probability": 0.0}, r"initial_probability must be from 1e-09 to 1, got 0.0"),
        ({"initial_probability": float("nan")}, "initial_probability must be"),
        ({"kind": "adaptive"}, "needs a table"),
    ],
)
def test_impossible_policies_are_refused_in_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Policy(**fields)


@pytest.mark.parametrize(
    ("edges", "thresholds", "sentence"),
    [
        ([0.1], [1], "one threshold more than edges"),
        ([0.2, 0.1], [1, 2, 3], "ascend"),
        ([0.1], [0, 1], "at least 1"),
    ],
)
def test_impossible_tables_are_refused_in_a_sentence(edges, thresholds, sentence):
    with pytest.raises(ValueError, match=sentence):
        ThresholdTable(edges, thresholds)


def test_a_threshold_above_n_is_refused():
    with pytest.raises(ValueError, match="threshold 9 exceeds the 8 slots"):
        Controller(Policy(kind="fixed", threshold=9), n_slots=8)


def test_a_policy_survives_the_wire():
    table = ThresholdTable([0.1, 0.2], [1, 2, 4])
    policy = Policy(kind="adaptive", threshold=2, table=table, initial_probability=0.1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(policy), type=Policy) == policy


def estimator(name, smoothing=0.3, window=64, initial=None):
    return make_estimator(name, smoothing=smoothing, window=window, initial_probability=initial)


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60), smoothing=st.floats(0.01, 1))
def test_ema_estimators_follow_their_recursion(lengths, smoothing):
    ema_length = estimator("ema_length", smoothing)
    ema_inverse = estimator("ema_inverse", smoothing)
    mean, inverse = float(lengths[0]), 1 / lengths[0]
    ema_length.observe(lengths[0])
    ema_inverse.observe(lengths[0])
    for length in lengths[1:]:
        ema_length.observe(length)
        ema_inverse.observe(length)
        mean = smoothing * length + (1 - smoothing) * mean
        inverse = smoothing / length + (1 - smoothing) * inverse
    assert ema_length.probability == pytest.approx(1 / mean)
    assert ema_inverse.probability == pytest.approx(inverse)
    # The mean of the inverse is never less than the inverse of the mean.
    assert ema_inverse.probability >= ema_length.probability * (1 - 1e-9)


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60), window=st.integers(1, 70))
def test_the_window_is_the_mean_of_the_last_lengths(lengths, window):
    found = estimator("window", window=window)
    for length in lengths:
        found.observe(length)
    assert found.probability == pytest.approx(1 / np.mean(lengths[-window:]))


def test_completions_without_a_further_token_are_no_division_by_zero():
    # Stop strings are found after the step: many requests end before the next token comes.
    found = estimator("completions_per_token", window=4)
    for _ in range(3):
        for _ in range(8):
            found.observe(0)
        assert found.look_up(lambda: 5) == 1.0


def test_completions_per_token_counts_the_tokens_of_unfinished_and_aborted_requests():
    found = estimator("completions_per_token", window=4)
    found.observe(10)
    found.observe(20)
    assert found.look_up(lambda: 70) == 2 / 100
    # The 70 tokens in progress belong to requests that go on: of them, 50 have ended by now.
    found.observe(60)
    found.observe_cut(30)
    assert found.look_up(lambda: 80) == 3 / 200
    found.observe(100)
    found.observe(100)
    # Two look-ups back lie 3 completions, three look-ups back 5, the start: at least 4 are wanted.
    assert found.look_up(lambda: 80) == 5 / 400
    found.observe(50)
    # The window now reaches back to the first look-up: 6 - 2 completions, 450 - 100 tokens.
    assert found.look_up(lambda: 80) == 4 / 350


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 70))
def test_with_nothing_in_progress_completions_per_token_is_the_window(lengths, window):
    mine = estimator("completions_per_token", window=window)
    window_of_lengths = estimator("window", window=window)
    for length in lengths:
        mine.observe(length)
        window_of_lengths.observe(length)
        assert mine.look_up(lambda: 0) == pytest.approx(window_of_lengths.probability)


@pytest.mark.parametrize("name", get_args(EstimatorName))
def test_unknown_p_is_an_error_not_a_guess(name):
    with pytest.raises(ValueError, match="initial_probability"):
        _ = estimator(name).probability
    assert estimator(name, initial=0.25).probability == 0.25


@pytest.mark.parametrize("name", get_args(EstimatorName))
def test_the_controller_looks_k_up_every_interval(name):
    table = ThresholdTable([0.02, 0.05], [2, 4, 8])
    policy = Policy(
        kind="adaptive",
        threshold=4,
        table=table,
        update_interval=3,
        estimator=name,
        window=6,
        initial_probability=0.03,
    )
    controller = Controller(policy, n_slots=8)
    for step, length in enumerate([10] * 18 + [200] * 60):
        controller.completed(length, float(step), lambda: 0)
    completions = [update.completions for update in controller.history]
    assert completions == list(range(3, 79, 3))
    assert controller.history[5].threshold == 8  # mean 10: p = 0.1
    assert controller.threshold == 2  # mean 200: p = 0.005


def test_only_an_adaptive_policy_keeps_a_history():
    controller = Controller(Policy(kind="fixed", threshold=4, update_interval=1), n_slots=8)
    controller.completed(10, 0.0, lambda: 0)
    controller.aborted(3)
    assert controller.history == []
    assert controller.threshold == 4
