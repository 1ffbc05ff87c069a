"""The policy's decisions and its online form, without vLLM."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdswitch.online import make_estimator
from pdswitch.policy import Controller, Policy, ThresholdTable

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
    assert table.lookup(p) == 1 + np.searchsorted(edges, p, side="right")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"threshold": 0}, "threshold must be at least 1, got 0"),
        ({"max_hold_s": 0.0}, "max_hold_s must be above 0, got 0.0; leave it out"),
        ({"update_interval": 0}, "update_interval must be at least 1, got 0"),
        ({"smoothing": 0.0}, r"smoothing must be in \(0, 1\], got 0.0"),
        ({"initial_probability": 0.0}, r"initial_probability must be in \(0, 1\], got 0.0"),
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


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60), smoothing=st.floats(0.01, 1))
def test_ema_estimators_follow_their_recursion(lengths, smoothing):
    ema_length = make_estimator("ema_length", smoothing, None)
    ema_inverse = make_estimator("ema_inverse", smoothing, None)
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


def test_unknown_p_is_an_error_not_a_guess():
    with pytest.raises(ValueError, match="initial_probability"):
        _ = make_estimator("ema_length", 0.3, None).probability


def test_the_controller_looks_k_up_every_interval():
    table = ThresholdTable([0.02, 0.05], [2, 4, 8])
    policy = Policy(
        kind="adaptive", threshold=4, table=table, update_interval=3, initial_probability=0.03
    )
    controller = Controller(policy, n_slots=8)
    for step, length in enumerate([10] * 6 + [200] * 60):
        controller.completed(length, float(step))
    completions = [update.completions for update in controller.history]
    assert completions == list(range(3, 67, 3))
    assert controller.history[1].threshold == 8  # mean 10: p = 0.1
    assert controller.threshold == 2  # mean 200: p = 0.005
