"""The threshold stage on step times whose parameters are known."""

import json
import runpy
from itertools import pairwise

import msgspec
import numpy as np
import pandas as pd
import pytest

from pdswitch.analysis.termination import summarise_lengths
from pdswitch.files import read_json, write_json
from pdswitch.theory import optimal_threshold
from synthetic_runs import termination_requests

N_SLOTS = 64
ALPHA_P, BETA_P, ALPHA_D, BETA_D = 0.02, 1e-4, 0.01, 1e-4
TERMINATION = msgspec.structs.replace(
    summarise_lengths(termination_requests(), 32, "mean", 0.3),
    termination_probability=0.02,
    standard_error=0.002,
    mean_prompt_tokens=50.0,
    std_prompt_tokens=20.0,
    min_prompt_tokens=10,
)
OPTIONS = {
    "n_slots": N_SLOTS,
    "per_completion": "expected",
    "kstar_table": "closed_form",
    "max_num_batched_tokens": 8192,
    "seed": 0,
}


@pytest.fixture(scope="module")
def compute(root):
    return runpy.run_path(str(root / "workflow/scripts/threshold.py"))["compute"]


@pytest.fixture(scope="module")
def steps():
    random = np.random.default_rng(0)
    tokens = np.geomspace(16, 3000, 60).round()
    prefill = pd.DataFrame(
        {
            "kind": "prefill",
            "prefill_tokens": tokens,
            "decode_requests": 0,
            "context_tokens": 0,
            "duration_s": ALPHA_P + BETA_P * tokens,
        }
    )
    active = np.tile(np.arange(1, N_SLOTS + 1), 4)
    decode = pd.DataFrame(
        {
            "kind": "decode",
            "prefill_tokens": 0,
            "decode_requests": active,
            "context_tokens": active * np.repeat([32, 64, 128, 96], N_SLOTS),
            "duration_s": ALPHA_D + BETA_D * active,
        }
    )
    frame = pd.concat([prefill, decode], ignore_index=True)
    frame["duration_s"] *= np.exp(random.normal(0, 0.01, len(frame)))
    return frame.assign(run=np.arange(len(frame)), step=0)


def test_k_star_is_that_of_the_known_parameters(compute, steps):
    found = compute(steps, TERMINATION, OPTIONS)
    expected = optimal_threshold(N_SLOTS, 0.02, ALPHA_P, ALPHA_D)
    assert abs(found["k_star"] - expected) <= 1
    assert found["k_star"] == found["k_star_expected"]
    low, high = found["k_star_range"]
    assert low <= found["k_star"] <= high


def test_the_published_form_is_what_everything_speaks_of_when_asked_for(compute, steps):
    found = compute(steps, TERMINATION, OPTIONS | {"per_completion": "single_exit"})
    assert found["k_star"] == found["k_star_single_exit"] > found["k_star_expected"] + 3
    low, high = found["k_star_range"]
    assert found["k_star_expected"] < low <= found["k_star"] <= high
    edges, thresholds = found["table"]["p_edges"], found["table"]["thresholds"]
    assert thresholds[np.searchsorted(edges, 0.02)] == found["k_star"]
    assert [point["k"] for point in found["transition_points"]] == list(thresholds[1:])
    moved = found["sensitivity"]["termination_probability"]
    assert moved["k_star"][list(moved["values"]).index(0.02)] == found["k_star"]


def test_the_table_can_come_from_the_measured_curves(compute, steps):
    closed = compute(steps, TERMINATION, OPTIONS)
    found = compute(steps, TERMINATION, OPTIONS | {"kstar_table": "measured_curves"})
    edges, thresholds = found["table"]["p_edges"], found["table"]["thresholds"]
    assert (np.diff(edges) > 0).all()
    assert thresholds[np.searchsorted(edges, 0.02)] == found["k_star_measured"]
    assert list(thresholds) != list(closed["table"]["thresholds"])
    for name in ("k_star", "k_star_range", "transition_points"):
        assert found[name] == closed[name]


def test_the_table_agrees_with_the_closed_form(compute, steps):
    found = compute(steps, TERMINATION, OPTIONS)
    edges, thresholds = found["table"]["p_edges"], found["table"]["thresholds"]
    times = found["timing"]
    alpha_p = times["prefill"]["linear"]["alpha_p"]
    alpha_d = times["decode"]["linear"]["alpha_d"]
    for i, (low, high) in enumerate(pairwise([1e-6, *edges, 1.0])):
        middle = (low + high) / 2
        assert thresholds[i] == optimal_threshold(N_SLOTS, middle, alpha_p, alpha_d)


def test_the_line_is_fitted_over_what_refills_visit(compute, steps):
    found = compute(steps, TERMINATION, OPTIONS)
    assert found["timing"]["prefill"]["linear"]["token_range"] == [10, 3200]


def test_without_a_fixed_decode_time_every_slot_is_waited_for(compute, steps):
    active = steps["decode_requests"]
    # Its straight line would begin below 0.
    curved = steps.assign(duration_s=steps["duration_s"].where(active == 0, 1e-4 * active**1.3))
    found = compute(curved, TERMINATION, OPTIONS)
    assert found["timing"]["decode"]["linear"]["alpha_d"] == 0
    assert found["ratio"] == np.inf
    assert found["k_star"] == N_SLOTS


def test_its_content_is_json(compute, steps, tmp_path):
    write_json(tmp_path / "threshold.json", compute(steps, TERMINATION, OPTIONS))
    again = read_json(tmp_path / "threshold.json")
    assert len(again["predicted"]["corrected"]) == N_SLOTS
    assert json.dumps(again)
