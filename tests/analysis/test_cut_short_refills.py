"""Refills that KV memory cuts short are counted, and no other refill is."""

from typing import Any

import pandas as pd
import pytest

from pdswitch.analysis.metrics import cut_short_refills, out_of_memory_cycles, refill_sizes
from pdswitch.analysis.validity import rejections
from separate_pytest import check_separately
from synthetic_runs import records_of, workload

COLUMNS = ("refill_cause", "admitted", "running", "waiting", "prefill_tokens", "preempted")
DECODE = ("", 0, 4, 9, 0, 0)


def record(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Steps of an engine with 8 slots; running and waiting as after the step was scheduled."""
    steps = pd.DataFrame(rows, columns=COLUMNS)
    return steps.astype({"refill_cause": "string"})


@pytest.mark.parametrize(
    ("rows", "cut_short"),
    [
        # All free slots are filled; or all that wait have one.
        ([("idle", 8, 8, 9, 80, 0), DECODE, ("threshold", 3, 8, 6, 30, 0)], 0),
        ([("drain", 2, 5, 0, 20, 0)], 0),
        # Fewer than were free and waiting, with an empty step and without one.
        ([("threshold", 2, 6, 9, 20, 0), ("continued", 0, 6, 9, 0, 0), DECODE], 1),
        ([("threshold", 2, 6, 9, 20, 0), DECODE], 1),
        ([("drain", 1, 5, 1, 10, 0), DECODE], 1),
        # Nothing at all.
        ([("threshold", 0, 4, 9, 0, 0), DECODE], 1),
        # The token budget spreads a refill over several steps, one of them without an admission.
        (
            [
                ("idle", 3, 3, 9, 30, 0),
                ("continued", 3, 6, 6, 30, 0),
                ("continued", 0, 6, 6, 30, 0),
                ("continued", 2, 8, 4, 20, 0),
            ],
            0,
        ),
        # The same, until memory ran out.
        (
            [
                ("idle", 3, 3, 9, 30, 0),
                ("continued", 0, 3, 9, 30, 0),
                ("continued", 1, 4, 8, 30, 0),
                ("continued", 0, 4, 8, 0, 0),
            ],
            1,
        ),
        # A request ends while the refill goes on: its slot was not free when the refill began.
        ([("threshold", 2, 7, 7, 20, 0), ("continued", 1, 7, 6, 10, 0)], 0),
        # A request is preempted in the refill's own step, and waits again.
        ([("threshold", 2, 7, 8, 20, 1)], 0),
        # Two refills in a row, the first of which is cut short.
        ([("max_hold", 1, 5, 9, 10, 0), ("max_hold", 3, 8, 6, 30, 0)], 1),
        # vLLM's own policy has no refills.
        ([("", 2, 4, 9, 20, 0), ("", 0, 4, 9, 0, 0)], 0),
    ],
)
def test_a_refill_is_cut_short_if_it_takes_fewer_than_are_free_and_waiting(rows, cut_short):
    assert cut_short_refills(record(*rows), 8).sum() == cut_short


def test_cycles_count_preemptions_and_refills_cut_short_once_each():
    short, whole = ("threshold", 2, 6, 9, 20, 0), ("threshold", 4, 8, 7, 40, 0)
    preempting = ("", 0, 3, 9, 0, 1)
    steps = record(whole, DECODE, short, DECODE, preempting, whole, preempting, short, DECODE)
    assert cut_short_refills(steps, 8).sum() == 2
    assert out_of_memory_cycles(steps, 8) == 3


def test_the_gate_names_refills_cut_short_and_tolerates_them_where_memory_is_measured():
    steps, requests, facts = records_of(workload(60), 2)
    begins = steps.index[steps["refill_cause"] == "threshold"]
    # As if one request fewer had been taken in by each of two refills.
    steps.loc[begins[:2], ["admitted", "running"]] -= 1
    steps.loc[begins[:2], "waiting"] += 1
    (reason,) = rejections(steps, requests, facts, True)
    refills = len(refill_sizes(steps))
    assert reason == (f"2 of {refills} refills were cut short: the KV memory is too small for N")
    assert rejections(steps, requests, facts, True, memory_bound=True) == []


@pytest.mark.slow
def test_the_real_scheduler_leaves_records_that_show_it(root):
    check_separately(root, "tests/support/cut_short_refills.py")
