"""What the scheduler needs of vLLM, checked on made-up model outputs.

Started by `test_scheduler_contract.py` on the installed vLLM, by `contract.py` on every supported
one. The names of its tests are the rows of the table in docs/vllm_versions.md.
"""

import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import RequestStatus

from pdswitch.record import RunRecord, decode_record
from pdswitch.scheduler import SwitchingScheduler
from scheduler_harness import Loop, make_request, make_scheduler

N_SLOTS = 8


@pytest.fixture(params=[0, 1], ids=["plain", "one-step-behind"])
def behind(request) -> int:
    return request.param


@pytest.fixture
def scheduler(tmp_path):
    return make(tmp_path)


def make(folder, **options):
    return make_scheduler(SwitchingScheduler, folder, N_SLOTS, **options)


def play(scheduler, behind, folder, policy, lengths, prompt=20, meanwhile=None) -> RunRecord:
    """Serve requests of these answer lengths as one run and return its record."""
    order = {
        "policy": policy,
        "requests": len(lengths),
        "record_path": str(folder / "run.msgpack"),
    }
    for i, tokens in enumerate(lengths):
        scheduler.add_request(make_request(f"r{i}", prompt, tokens, order))
    loop = Loop(scheduler, behind)
    if meanwhile is not None:
        meanwhile(loop)
    loop.serve()
    record = decode_record((folder / "run.msgpack").read_bytes())
    assert [s for s in record.steps if s.prefill_tokens and s.decode_requests] == []
    return record


def fixed(k: int, **more) -> dict:
    return {"kind": "fixed", "threshold": k, **more}


def all_tokens(record: RunRecord) -> dict[str, int]:
    return {row.request_id: row.output_tokens for row in record.requests}


LENGTHS = [3 + (7 * i) % 19 for i in range(40)]
EXPECTED = {f"r{i}": tokens for i, tokens in enumerate(LENGTHS)}


@pytest.mark.parametrize("k", [1, 3, 8])
def test_exclusive_phases(scheduler, behind, tmp_path, k):
    record = play(scheduler, behind, tmp_path, fixed(k), LENGTHS)
    assert all_tokens(record) == EXPECTED
    assert sum(step.decode_requests for step in record.steps) == sum(LENGTHS) - len(LENGTHS)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_refills_of_exactly_the_freed_slots(scheduler, behind, tmp_path, k):
    record = play(scheduler, behind, tmp_path, fixed(k), LENGTHS)
    for step in record.steps:
        if step.admitted:
            free = N_SLOTS - (step.running - step.admitted)
            waiting = step.waiting + step.admitted
            assert free >= min(k, waiting)
            assert step.admitted == min(free, waiting)


def test_k_changes_while_serving(scheduler, behind, tmp_path):
    policy = {
        "kind": "adaptive",
        "threshold": 2,
        "table": {"p_edges": [0.05], "thresholds": [2, 6]},
        "update_interval": 8,
        "initial_probability": 0.01,
    }
    record = play(scheduler, behind, tmp_path, policy, [4] * 64)
    assert {step.threshold for step in record.steps} == {2, 6}
    assert [update.completions for update in record.history] == list(range(8, 65, 8))


@pytest.mark.parametrize("drain", ["eager", "strict"])
def test_drains(scheduler, behind, tmp_path, drain):
    lengths = [4 + 6 * (i % 8) for i in range(11)]
    record = play(scheduler, behind, tmp_path, fixed(6, drain=drain), lengths)
    causes = [step.refill_cause for step in record.steps if step.admitted]
    assert causes == ["idle", {"eager": "drain", "strict": "threshold"}[drain]]


def test_chunked_prefill(behind, tmp_path):
    scheduler = make(tmp_path, step_tokens=2048)
    record = play(scheduler, behind, tmp_path, fixed(8), [5] * 16, prompt=600)
    assert max(step.prefill_tokens for step in record.steps) == 2048
    assert sum(step.prefill_tokens for step in record.steps) == 16 * 600
    assert set(all_tokens(record).values()) == {5}


def test_preemption(behind, tmp_path):
    # Room for 31 blocks of 16 tokens; eight answers of 80 tokens need 56.
    scheduler = make(tmp_path, blocks=32)
    record = play(scheduler, behind, tmp_path, fixed(3), [80 + i for i in range(12)])
    assert sum(step.preempted for step in record.steps) > 0
    assert all_tokens(record) == {f"r{i}": 80 + i for i in range(12)}


def test_abort(scheduler, behind, tmp_path):
    def meanwhile(loop):
        for _ in range(4):
            loop.step()
        loop.scheduler.finish_requests(["r1", "r30"], RequestStatus.FINISHED_ABORTED)

    record = play(scheduler, behind, tmp_path, fixed(3), [9] * 40, meanwhile=meanwhile)
    got = all_tokens(record)
    assert got["r30"] == 0
    assert 0 < got["r1"] < 9
    assert {n for name, n in got.items() if name not in ("r1", "r30")} == {9}


def test_mixed_is_vllms_own_schedule(tmp_path):
    def steps(scheduler):
        for i, tokens in enumerate(LENGTHS):
            scheduler.add_request(make_request(f"r{i}", 20, tokens))
        return [step.num_scheduled_tokens for step in Loop(scheduler, 1).serve()]

    own = steps(make_scheduler(AsyncScheduler, tmp_path, N_SLOTS))
    assert steps(make(tmp_path)) == own
