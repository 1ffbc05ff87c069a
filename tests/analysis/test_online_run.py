"""k* online and p̂ are medians over the steady part of the run: the drain does not count."""

import numpy as np
import pandas as pd
import pytest

from pdswitch.analysis.metrics import steady_window
from pdswitch.analysis.online_run import online_estimation
from pdswitch.figures import online_kstar_convergence
from pdswitch.plugin.online_estimators import EmaLength
from pdswitch.report.wording import online_basis, verdict_rows
from synthetic import results_of
from synthetic_runs import N_SLOTS, P, records_of, workload

STEPS, REQUESTS, _ = records_of(workload(120), 3)
WINDOW = steady_window(STEPS, N_SLOTS)


def history_of(times: list[float], thresholds: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "completions": range(1, len(times) + 1),
            "time_s": np.array(times, float),
            "termination_probability": 0.01 * np.array(thresholds, float),
            "threshold": np.array(thresholds, "int32"),
        }
    )


def estimated(times: list[float], thresholds: list[int], steps: pd.DataFrame = STEPS):
    return online_estimation(history_of(times, thresholds), steps, REQUESTS, N_SLOTS)


def inside(count: int) -> list[float]:
    return np.linspace(WINDOW.start_s, WINDOW.end_s, count + 1)[1:].tolist()


@pytest.mark.parametrize(
    ("thresholds", "k_star", "p"),
    [
        ([7], 7, 0.07),
        ([9, 5, 6], 6, 0.06),
        ([5, 6], 6, 0.055),  # between two thresholds it is rounded up
        ([4, 8], 6, 0.06),
        ([30, 7, 7, 7, 1], 7, 0.07),
    ],
)
def test_the_median_of_the_steady_updates_counts(thresholds, k_star, p):
    found = estimated(inside(len(thresholds)), thresholds)
    assert found["k_star"] == k_star
    assert isinstance(found["k_star"], int)
    assert found["termination_probability"] == pytest.approx(p)
    assert found["steady_updates"] == len(thresholds)


def test_updates_in_the_drain_do_not_count():
    drain = np.linspace(WINDOW.end_s, STEPS["done_s"].iloc[-1], 6)[1:].tolist()
    found = estimated(inside(3) + drain, [6, 5, 6, 4, 3, 2, 1, 1])
    assert (found["k_star"], found["steady_updates"], found["updates"]) == (6, 3, 8)
    assert len(found["history"]) == 8


def test_an_average_over_the_last_answers_is_wrong_in_the_drain_and_right_before():
    # The last to end are the longest, whatever p is.
    served = REQUESTS.sort_values("finish_s")
    estimator, rows = EmaLength(0.3, P), []
    for number, (time, tokens) in enumerate(
        zip(served["finish_s"], served["output_tokens"], strict=True), start=1
    ):
        estimator.observe(tokens)
        if number % 4 == 0:
            rows.append((number, time, estimator.probability, round(100 * estimator.probability)))
    columns = ["completions", "time_s", "termination_probability", "threshold"]
    history = pd.DataFrame(rows, columns=columns)
    found = online_estimation(history, STEPS, REQUESTS, N_SLOTS)
    assert history["termination_probability"].iloc[-1] < 0.6 * P
    assert found["termination_probability"] == pytest.approx(P, rel=0.25)


def test_the_numbers_say_where_the_window_lies():
    found = estimated(inside(2), [3, 3])
    first, last = found["steady_completions"]
    assert 0 <= first < last < found["completions"] == len(REQUESTS)
    assert last == (REQUESTS["finish_s"] <= WINDOW.end_s).sum()


def said_of(found: dict) -> tuple[str, str]:
    results = results_of() | {"online_estimation": found, "k_star_online": found["k_star"]}
    caption = online_kstar_convergence.caption(results)
    assert online_basis(results) in caption
    return dict(verdict_rows(results))["k* online"], caption


def test_without_a_steady_update_there_is_no_k_star_and_the_reason_is_said():
    cases = {
        "the run ended before the first update": estimated([], []),
        "none of 1 update lies in the steady window": estimated([WINDOW.end_s + 1], [3]),
        "the run has no steady window": estimated(inside(2), [3, 3], STEPS.assign(waiting=0)),
    }
    for reason, found in cases.items():
        assert found["k_star"] is None
        assert found["termination_probability"] is None
        row, caption = said_of(found)
        assert row.startswith("–, ")
        assert reason in row
        assert "No k* online" in caption


def test_what_the_median_rests_on_is_said():
    row, caption = said_of(estimated([*inside(3), WINDOW.end_s + 1], [6, 5, 6, 1]))
    assert row == "6, median of 3 of 4 updates: those in the steady window"
    assert "k* = 6 at p = 0.0600" in caption
    assert "Grey: ramp and drain" in caption
