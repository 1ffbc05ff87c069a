"""Refills that KV memory cuts short, in records of the real scheduler on made-up model outputs.

Started by `test_cut_short_refills.py`.
"""

from pathlib import Path

import pytest

from pdswitch.analysis.metrics import cut_short_refills
from pdswitch.plugin.scheduler import SwitchingScheduler
from pdswitch.record import decode_record
from scheduler_harness import Loop, make_request, make_scheduler

N_SLOTS = 16


def steps_of(folder: Path, threshold: int, blocks: int, step_tokens: int, behind: int):
    """Serve 60 requests of 3 KV blocks each and return their steps."""
    scheduler = make_scheduler(
        SwitchingScheduler, folder, N_SLOTS, blocks=blocks, step_tokens=step_tokens
    )
    path = folder / "record"
    policy = {"kind": "fixed", "threshold": threshold}
    order = {"policy": policy, "requests": 60, "record_path": str(path)}
    for i in range(60):
        scheduler.add_request(make_request(f"r{i}", 40, 1 + i % 7, order))
    Loop(scheduler, behind).serve()
    return decode_record(path.read_bytes()).steps_frame()


@pytest.mark.parametrize("behind", [0, 1])
@pytest.mark.parametrize("threshold", [1, 4, 16])
@pytest.mark.parametrize("step_tokens", [48, 8192])
def test_none_is_cut_short_where_memory_suffices(tmp_path, threshold, step_tokens, behind):
    steps = steps_of(tmp_path, threshold, 2000, step_tokens, behind)
    assert (steps["refill_cause"] == "continued").any() == (step_tokens == 48)
    assert cut_short_refills(steps, N_SLOTS).sum() == 0


@pytest.mark.parametrize("behind", [0, 1])
@pytest.mark.parametrize("step_tokens", [48, 8192])
def test_memory_for_ten_of_sixteen_cuts_refills_short(tmp_path, step_tokens, behind):
    steps = steps_of(tmp_path, 2, 31, step_tokens, behind)
    begun = (~steps["refill_cause"].isin(["", "continued"])).sum()
    found = cut_short_refills(steps, N_SLOTS).sum()
    # The last ones take all that wait.
    assert begun - 3 <= found <= begun
    assert steps["preempted"].sum() == 0
    # The scheduler knows what memory can take, and begins no refill in vain.
    assert not ((steps["refill_cause"] != "") & (steps["prefill_tokens"] == 0)).any()
