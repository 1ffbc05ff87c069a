"""Decode steps of one size that take two times are found in profiles and runs, noise is not."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pdswitch.files import read_json, write_parquet
from pdswitch.profiling.fit import fit_steps
from pdswitch.profiling.modes import FEWEST_STEPS, decode_modes
from synthetic_runs import N_SLOTS, profile_of, records_of, workload


def sized(seconds, size: int = 8, context=None) -> pd.DataFrame:
    """Decode steps of one size."""
    count = len(seconds)
    return pd.DataFrame(
        {
            "prefill_tokens": 0,
            "decode_requests": size,
            "duration_s": seconds,
            "context_tokens": np.full(count, 1000) if context is None else context,
        }
    )


def disturbed(steps: pd.DataFrame, share: float, ratio: float, seed: int = 0) -> pd.DataFrame:
    """The same steps, some of the decodes slower."""
    random = np.random.default_rng(seed)
    slow = (steps["decode_requests"] > 0) & (random.random(len(steps)) < share)
    return steps.assign(duration_s=steps["duration_s"].where(~slow, ratio * steps["duration_s"]))


@pytest.mark.parametrize("count", [20, 60, 5000])
@pytest.mark.parametrize("share", [0.4, 0.6])
def test_two_times_of_one_size_are_found_with_their_share(count, share):
    random = np.random.default_rng(count)
    slow = np.arange(count) < share * count
    seconds = random.permutation(np.where(slow, 0.11, 0.02)) * random.lognormal(0, 0.04, count)
    (found,) = decode_modes(sized(seconds))
    assert found["requests"] == 8
    assert found["steps"] == count
    assert found["modes_s"] == pytest.approx([0.02, 0.11], rel=0.05)
    assert found["slow_share"] == pytest.approx(share, abs=0.05)


def test_a_run_with_two_times_is_found_and_a_quiet_one_is_not():
    steps, _, _ = records_of(workload(400), 2)
    assert decode_modes(steps) == []
    found = decode_modes(disturbed(steps, 0.4, 5.5))
    assert found
    for one in found:
        assert one["modes_s"][1] / one["modes_s"][0] == pytest.approx(5.5, rel=0.2)


def test_a_profile_with_two_times_is_found_and_a_quiet_one_is_not():
    steps = profile_of()
    assert fit_steps(steps, N_SLOTS)["decode"]["modes"] == []
    found = fit_steps(disturbed(steps, 0.4, 5.5), N_SLOTS)["decode"]["modes"]
    assert {one["requests"] for one in found} <= set(range(1, N_SLOTS + 1))
    assert found


def test_the_profile_stage_says_it(tmp_path, root, command_environment):
    steps, fit = tmp_path / "steps.parquet", tmp_path / "fit.json"
    write_parquet(steps, disturbed(profile_of(), 0.5, 5.5))
    script = str(root / "workflow/scripts/fit.py")
    arguments = ["--steps", str(steps), "--n-slots", str(N_SLOTS), "--output", str(fit)]
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=command_environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "warning: decode steps of " in done.stdout
    assert read_json(fit)["decode"]["modes"]


def test_steps_of_several_sizes_are_no_modes_of_one():
    # Stairs, as CUDA graphs make them.
    steps = pd.concat([sized([0.01 * (1 + size // 4)] * 40, size) for size in range(1, 17)])
    assert decode_modes(steps.reset_index(drop=True)) == []


def test_context_explains_what_grows_with_it():
    random = np.random.default_rng(0)
    growing = np.linspace(1000, 200_000, 400)
    assert decode_modes(sized(0.02 + 1e-6 * growing, context=growing)) == []
    # Short requests in half of the steps, and long ones in the other half.
    two = np.where(np.arange(400) % 40 < 20, 2_000, 200_000) * random.lognormal(0, 0.05, 400)
    seconds = (0.02 + 1e-6 * two) * random.lognormal(0, 0.02, 400)
    assert decode_modes(sized(seconds, context=two)) == []
    # Not where more context goes with less time, or with far more time than it can cost.
    assert decode_modes(sized(seconds, context=two[::-1]))
    slightly_more = np.where(two > 20_000, 1_100, 1_000)
    assert decode_modes(sized(seconds, context=slightly_more))


def test_steps_next_to_a_refill_do_not_count():
    # Every fourth decode step is one before a refill, whose end the host sees late.
    count = 400
    steps = sized(np.where(np.arange(count) % 5 == 3, 0.05, 0.02))
    steps.loc[steps.index % 5 == 4, ["prefill_tokens", "decode_requests"]] = [100, 0]
    assert decode_modes(steps) == []


def test_too_few_steps_say_nothing():
    seconds = [0.02, 0.11] * (FEWEST_STEPS // 2)
    assert decode_modes(sized(seconds))
    assert decode_modes(sized(seconds[:-1])) == []
    assert decode_modes(sized([])) == []


@pytest.mark.parametrize(
    "law",
    [
        lambda random, n: random.lognormal(0, 0.1, n),
        lambda random, n: np.exp(0.05 * np.abs(random.standard_t(2, n))),
        lambda random, n: 1 + 0.2 * random.pareto(1.5, n),
        lambda random, n: random.lognormal(0, 0.05, n) * np.where(random.random(n) < 0.05, 5, 1),
        lambda random, n: np.linspace(1, 1.3, n) * random.lognormal(0, 0.05, n),
    ],
    ids=["normal", "heavy tail", "heavier tail", "stalls", "drift"],
)
def test_noise_of_one_mode_is_hardly_ever_two(law):
    random, trials = np.random.default_rng(3), 60
    runs = [records_of(workload(count), k)[0] for count in (80, 400) for k in (1, 4, 8)]
    profile = profile_of()
    found = sum(
        bool(decode_modes(steps.assign(duration_s=steps["duration_s"] * law(random, len(steps)))))
        for steps in [*runs, profile]
        for _ in range(trials // len(runs))
    )
    # In 70 records; docs/engine.md has the rate over thousands.
    assert found == 0
