"""Equal steps that take unequal times are seen, and ordinary noise is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.analysis.disturbances import disturbances
from pdswitch.engine.self_check import FEWEST_STEPS, STEPS, judge
from pdswitch.profiling.two_modes import two_modes

seeds = st.integers(0, 10_000)
QUIET = {"load_average": 1.0, "devices": []}
WORKERS = [{"torch_threads": 1, "cores": 1, "nice": 0}]


def steps(seed: int, mean: float = 0.02, noise: float = 0.03, count: int = STEPS) -> np.ndarray:
    return mean * np.random.default_rng(seed).lognormal(0, noise, count)


@settings(max_examples=200, deadline=None)
@given(seed=seeds, noise=st.floats(0, 0.5))
def test_noise_about_one_time_is_one_mode(seed, noise):
    assert two_modes(steps(seed, noise=noise)) is None


@pytest.mark.parametrize("law", ["uniform", "exponential"])
def test_flat_and_skewed_times_are_hardly_ever_two_modes(law):
    random = np.random.default_rng(0)
    drawn = getattr(random, law)(size=(2000, STEPS))
    found = sum(two_modes((1 + 0.5 * times).tolist()) is not None for times in drawn)
    assert found <= 2


@settings(max_examples=200, deadline=None)
@given(seed=seeds, share=st.floats(0.12, 0.88), ratio=st.floats(1.5, 8), noise=st.floats(0, 0.04))
def test_two_times_are_two_modes_and_are_named(seed, share, ratio, noise):
    slow = round(share * STEPS)
    times = np.concatenate(
        [steps(seed, 0.02, noise, STEPS - slow), steps(seed + 1, 0.02 * ratio, noise, slow)]
    )
    fast_s, slow_s = two_modes(np.random.default_rng(seed).permutation(times))
    assert fast_s == pytest.approx(0.02, rel=0.1)
    assert slow_s == pytest.approx(0.02 * ratio, rel=0.1)


@pytest.mark.parametrize("stalls", [1, 2, 4])
def test_a_few_stalls_are_no_mode(stalls):
    times = steps(1)
    times[:stalls] *= 6
    assert two_modes(times) is None
    # A clock may not have moved on.
    times[-1] = 0
    assert two_modes(times) is None


def test_a_quiet_machine_gives_no_warning():
    found = judge({1: steps(0), 16: steps(1, 0.045)}, QUIET, WORKERS, 2)
    assert found["warnings"] == []
    assert found["likely_cause"] is None
    assert (found["load_average"], found["cores"]) == (1.0, 2)
    assert [step["batch_size"] for step in found["decode"]] == [1, 16]
    assert found["decode"][1]["median_s"] == pytest.approx(0.045, rel=0.02)


def test_a_wide_spread_is_said_with_its_number():
    found = judge({1: steps(0), 16: steps(1, 0.045, 0.12)}, QUIET, WORKERS, 2)
    (warning,) = found["warnings"]
    spread = found["decode"][1]["spread"]
    assert spread > 0.2
    assert warning == f"equal decode steps of 16 requests differ by {100 * spread:.0f} %"
    assert found["likely_cause"] == (
        "another program or another guest of the host, or a clock that changes"
    )


def test_two_modes_are_said_with_both_times():
    found = judge({1: np.repeat([0.02, 0.11], STEPS // 2)}, QUIET, WORKERS, 2)
    assert found["warnings"] == ["equal decode steps of 1 request take 20.0 ms or 110.0 ms"]


@pytest.mark.parametrize(
    ("conditions", "worker", "cause"),
    [
        (
            {"load_average": 2.6},
            {},
            "other programs, or what ran just before, such as the start of the engine",
        ),
        ({"load_average": 2.6}, {"torch_threads": 2}, "2 torch threads share 1 core"),
        ({}, {"nice": 10}, "other programs go before an engine with a niceness"),
        (
            {"devices": [{"throttle_reasons": ["gpu_idle", "hw_thermal_slowdown"]}]},
            {},
            "the device lowers its clocks (hw_thermal_slowdown)",
        ),
        (
            {"devices": [{"throttle_reasons": None}]},
            {},
            "another program or another guest of the host, or a clock that changes",
        ),
    ],
)
def test_the_likely_cause_is_what_can_be_seen(conditions, worker, cause):
    found = judge({1: steps(1, noise=0.2)}, QUIET | conditions, [WORKERS[0] | worker], 2)
    assert found["likely_cause"] == cause


def test_a_load_above_the_cores_is_a_warning_of_its_own():
    found = judge({1: steps(0)}, QUIET | {"load_average": 2.14}, WORKERS, 2)
    assert found["warnings"] == ["the load average is 2.1 on 2 cores"]
    assert judge({1: steps(0)}, QUIET | {"load_average": 2.0}, WORKERS, 2)["warnings"] == []


def test_a_niceness_is_a_warning_of_its_own():
    found = judge({1: steps(0)}, QUIET, [WORKERS[0] | {"nice": 5}], 2)
    assert found["warnings"] == ["the engine runs at nice 5"]


def test_threads_that_vllm_binds_are_not_said_to_share_a_core():
    found = judge(
        {1: steps(1, noise=0.2)}, QUIET, [{"torch_threads": 3, "cores": None, "nice": 0}], 4
    )
    assert "torch threads" not in found["likely_cause"]


def test_too_few_steps_say_nothing():
    found = judge({16: steps(0, noise=0.9, count=FEWEST_STEPS - 1)}, QUIET, WORKERS, 2)
    assert found["decode"] == []
    assert found["warnings"] == []


def test_a_check_that_several_runs_share_counts_once_and_the_worst_is_kept():
    def run(number: int, noise: float) -> dict:
        check = judge({1: steps(number, noise=noise)}, QUIET, WORKERS, 2)
        return {"conditions": {"self_check": {"checked_at": str(number), **check}}}

    found = disturbances([run(1, 0.02), run(2, 0.2), run(2, 0.2), run(3, 0.5), run(4, 0.02)])
    assert (found["checks"], found["disturbed"]) == (4, 2)
    assert found["worst"]["checked_at"] == "3"
    assert disturbances([run(1, 0.02)]) == {"checks": 1, "disturbed": 0, "worst": None}
