"""The verdict says when it should not be trusted, with the number, and only then."""

import copy
from typing import Any

import pytest

from pdswitch.analysis.doubts import doubts
from pdswitch.report.wording import doubt_clause, headline, verdict_rows
from synthetic import results_of

QUIET = {"load_average": 1.9, "cores": 2}
MODES = {
    "profile": [],
    "runs": 5,
    "of": 24,
    "worst": {
        "where": "results/m/d/N=8/throughput/threshold=3/rep=1",
        "requests": 8,
        "steps": 120,
        "modes_s": [0.02, 0.11],
        "slow_share": 0.36,
    },
}


def facts_of(**conditions: Any) -> dict[str, Any]:
    return {"conditions": {"before": QUIET, "self_check": QUIET, "after": QUIET} | conditions}


def found(facts: list[dict[str, Any]] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """The doubts of good results with some of their parts changed."""
    results = copy.deepcopy(results_of())
    for path, value in changes.items():
        *folders, name = path.split("__")
        part = results
        for folder in folders:
            part = part[folder]
        part[name] = value
    return doubts(results, facts or [facts_of()] * 3)


def test_good_results_raise_none():
    assert found() == []
    results = results_of()
    assert "trusted" not in headline(results)
    assert "not to be trusted" not in dict(verdict_rows(results))


@pytest.mark.parametrize("moment", ["before", "self_check", "after"])
def test_a_load_above_the_cores_is_one_whenever_it_was_seen(moment):
    busy = facts_of(**{moment: {"load_average": 7.42, "cores": 2}})
    (one,) = found([facts_of(), busy, facts_of(before={"load_average": 2.1, "cores": 2})])
    assert one == {"kind": "load", "load_average": 7.42, "cores": 2, "runs": 2, "of": 3}
    assert doubt_clause({"doubts": [one]}) == (
        "; not to be trusted: the load average was 7.4 on 2 cores"
    )


def test_records_that_do_not_tell_the_cores_or_the_load_raise_none():
    assert found([{}, {"conditions": {"self_check": {"load_average": 9.0}}}, facts_of()]) == []


@pytest.mark.parametrize(
    ("path", "good", "bad", "kind", "words"),
    [
        (
            "timing__decode__linear__r_squared", 0.5, 0.312, "fit",
            "the decode fit has R² 0.31",
        ),
        (
            "timing__prefill__linear__r_squared", 0.51, -0.2, "fit",
            "the prefill fit has R² -0.20",
        ),
        ("prediction__mape_corrected", 0.2, 0.306, "prediction", "the prediction errs by 31 %"),
        (
            "offline_estimation__truncated", 100, 124, "cut",
            "62 % of the answers were cut at the limit",
        ),
        (
            "step_modes", MODES | {"worst": None}, MODES, "step_modes",
            "decode steps of 8 requests take 20 or 110 ms",
        ),
    ],
)  # fmt: skip
def test_each_reason_has_its_limit_and_its_number(path, good, bad, kind, words):
    assert found(**{path: good}) == []
    (one,) = found(**{path: bad})
    assert one["kind"] == kind
    assert doubt_clause({"doubts": [one]}) == f"; not to be trusted: {words}"


def test_no_prediction_to_judge_raises_none():
    assert found(prediction__mape_corrected=None) == []


@pytest.mark.parametrize(("cycles", "raised"), [(1, False), (2, False), (3, False), (28, True)])
def test_more_cycles_without_memory_than_tolerated_raise_one(cycles, raised):
    measured = {"cycles": 29, "out_of_memory_cycles": cycles}
    memory = {"oom_tolerance": 0.05, "measured": measured}
    kinds = [one["kind"] for one in found(memory=memory)]
    assert kinds == (["memory"] if raised else [])
    assert found(memory={"oom_tolerance": 0.05, "measured": {"cycles": 0}}) == []


def test_all_of_them_stand_in_one_clause_of_every_sentence_and_in_full_in_the_rows():
    measured = {"cycles": 29, "out_of_memory_cycles": 28}
    against = found(
        [facts_of(before={"load_average": 7.42, "cores": 2})] * 24,
        timing__decode__linear__r_squared=0.3,
        prediction__mape_corrected=0.4,
        offline_estimation__truncated=150,
        step_modes=MODES,
        memory={"oom_tolerance": 0.05, "measured": measured},
    )
    results = results_of()
    results["verdict"]["doubts"] = against
    clause = (
        "; not to be trusted: the load average was 7.4 on 2 cores, the decode fit has R² 0.30, the "
        "prediction errs by 40 %, 75 % of the answers were cut at the limit, decode steps of 8 "
        "requests take 20 or 110 ms and KV memory ran out in 97 % of the cycles."
    )
    assert headline(results).endswith(clause)
    for regret in (None, 0.01):
        for low in (None, 0.0):
            results["verdict"] |= {"regret": regret, "regret_low": low}
            assert headline(results).endswith(clause)
    row = dict(verdict_rows(results))["not to be trusted"]
    for detail in (
        "above the cores in 24 of 24 runs",
        "see the residuals",
        "150 of 200",
        "36 % of 120 steps the longer (results/m/d/N=8/throughput/threshold=3/rep=1)",
        "in 5 of 24 runs",
        "28 of 29, where 5.0 % is tolerated",
    ):
        assert detail in row


def test_verdicts_that_cannot_be_judged_have_their_doubts_too():
    results = results_of()
    results["verdict"] |= {"regret": None, "doubts": found(prediction__mape_corrected=0.3)}
    assert headline(results).endswith(
        "could not be judged; rejected: 0 runs; not to be trusted: the prediction errs by 30 %."
    )
