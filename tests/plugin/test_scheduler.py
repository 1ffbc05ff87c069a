"""What SwitchingScheduler promises, on the installed vLLM with a tiny random model.

These tests are the contract with vLLM's unpublished scheduler interface: when a new version breaks
it, the name of the failing test says what.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from pdswitch.engine.client import EngineError, open_engine
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.engine.spec import EngineSpec
from pdswitch.plugin.policy import Policy, ThresholdTable
from pdswitch.plugin.record import RunRecord
from pdswitch.record import decode_record

pytestmark = pytest.mark.slow

N_SLOTS = 8
GREEDY = {"temperature": 0.0}


def opened(model: Path, folder: Path, **changes):
    """Open an engine process for the tiny model, with its log in the folder."""
    values = {
        "model": str(model),
        "n_slots": N_SLOTS,
        "max_model_len": 2048,
        "max_num_batched_tokens": 512,
        "device": "cpu",
        "dtype": "float32",
        "num_kv_blocks": 120,
        "kv_cache_memory_bytes": 1 << 28,
        "enforce_eager": True,
    }
    return open_engine(
        EngineSpec(**(values | changes)),
        idle_timeout_s=300,
        start_timeout_s=280,
        log_folder=folder,
        say=print,
        root=folder,
    )


def end_engines(folder: Path) -> None:
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or []):
            process.terminate()


@pytest.fixture(scope="module")
def engine(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    with opened(tiny_model, folder) as engine:
        yield engine
    end_engines(folder)


def requests(count: int, prompt: int = 20, mean_output: int = 15, seed: int = 0) -> list[Request]:
    random = np.random.default_rng(seed)
    return [
        Request(
            f"r{i}",
            random.integers(0, 250, int(random.integers(1, 2 * prompt))).tolist(),
            min(100, int(random.geometric(1 / mean_output))),
            True,
        )
        for i in range(count)
    ]


def serve(engine, policy: Policy, wanted: list[Request]) -> RunRecord:
    result = engine.run(RunCommand(policy, wanted, GREEDY), lambda progress: None)
    return decode_record(result.record)


def check_complete(record: RunRecord, wanted: list[Request]) -> None:
    """Every request ended with as many tokens as asked for, and the record adds up."""
    got = {row.request_id: row.output_tokens for row in record.requests}
    assert got == {request.request_id: request.max_tokens for request in wanted}
    steps = record.steps
    assert sum(step.prefill_tokens for step in steps) == sum(
        len(request.prompt_token_ids) for request in wanted
    )
    # The prefill emits a request's first token.
    assert sum(step.decode_requests for step in steps) == sum(
        request.max_tokens - 1 for request in wanted
    )
    assert sum(step.finished for step in steps) == len(wanted)
    assert sum(step.admitted for step in steps) == len(wanted)
    assert all(b.done_s >= a.done_s for a, b in pairwise(steps))
    for row in record.requests:
        assert row.arrival_s <= row.admitted_s <= row.first_token_s <= row.finish_s


def mixed_steps(record: RunRecord) -> int:
    return sum(step.prefill_tokens > 0 and step.decode_requests > 0 for step in record.steps)


def refills(record: RunRecord) -> list[int]:
    """Requests admitted by each run of consecutive prefill steps."""
    sizes, inside = [], False
    for step in record.steps:
        if step.prefill_tokens:
            if not inside:
                sizes.append(0)
            sizes[-1] += step.admitted
        inside = step.prefill_tokens > 0
    return sizes


@pytest.mark.parametrize("threshold", [1, 2, 3, 5, 8])
def test_fixed_keeps_phases_apart_and_every_token_is_served(engine, threshold):
    wanted = requests(40, seed=threshold)
    record = serve(engine, Policy(kind="fixed", threshold=threshold), wanted)
    check_complete(record, wanted)
    assert mixed_steps(record) == 0
    assert all(step.threshold == threshold for step in record.steps)


@pytest.mark.parametrize("threshold", [1, 3, 8])
def test_a_refill_takes_exactly_the_freed_slots_in_one_step(engine, threshold):
    record = serve(engine, Policy(kind="fixed", threshold=threshold), requests(60))
    active = 0
    for step in record.steps:
        if step.prefill_tokens and active:
            free = N_SLOTS - active
            assert free >= min(threshold, step.admitted + step.waiting)
            assert step.admitted == min(free, step.admitted + step.waiting)
        active = step.running - step.finished
    assert refills(record)[0] == N_SLOTS


def test_mixed_is_vllms_own_policy(engine):
    wanted = requests(40)
    record = serve(engine, Policy(kind="mixed"), wanted)
    check_complete(record, wanted)
    assert mixed_steps(record) > 0
    assert all(step.threshold == 0 for step in record.steps)


def test_k_changes_between_runs_of_one_engine(engine):
    wanted = requests(60, mean_output=20)
    sizes = [
        np.mean(refills(serve(engine, Policy(kind="fixed", threshold=k), wanted))[1:-1])
        for k in (1, 4, 8)
    ]
    assert sizes[0] < sizes[1] < sizes[2] == N_SLOTS


def test_greedy_outputs_equal_the_default_policys_in_float32(engine):
    wanted = requests(24, mean_output=12)
    outputs = [
        engine.run(RunCommand(policy, wanted, GREEDY, True), lambda progress: None).outputs
        for policy in (Policy(kind="mixed"), Policy(kind="fixed", threshold=3))
    ]
    assert [o.token_ids for o in outputs[0]] == [o.token_ids for o in outputs[1]]
    # A model that always says the same would pass whatever the scheduler did.
    assert len({tuple(output.token_ids[:4]) for output in outputs[0]}) > 12


def test_drain_rules(engine):
    # 8 + 3 requests: after the first wave fewer than k = 6 wait.
    wanted = [Request(f"r{i}", [1, 2, 3], 4 + 6 * (i % 8), True) for i in range(11)]
    eager = serve(engine, Policy(kind="fixed", threshold=6, drain="eager"), wanted)
    strict = serve(engine, Policy(kind="fixed", threshold=6, drain="strict"), wanted)
    assert refills(eager) == refills(strict) == [8, 3]
    assert [step.refill_cause for step in eager.steps if step.admitted] == ["idle", "drain"]
    assert [step.refill_cause for step in strict.steps if step.admitted] == ["idle", "threshold"]

    def free_at_second_refill(record: RunRecord) -> int:
        second = next(step for step in record.steps[1:] if step.admitted)
        return N_SLOTS - (second.running - second.admitted)

    assert free_at_second_refill(eager) == 3
    assert free_at_second_refill(strict) == 6


def test_one_token_requests_end_in_the_refill(engine):
    wanted = [Request(f"r{i}", [1, 2, 3], 1, True) for i in range(20)]
    record = serve(engine, Policy(kind="fixed", threshold=4), wanted)
    check_complete(record, wanted)
    assert refills(record) == [20]
    assert [step.finished for step in record.steps if step.admitted] == [8, 8, 4]


def test_chunked_prefill_when_the_budget_is_smaller_than_the_refill(engine):
    # 8 prompts of 200 tokens against a budget of 512 tokens a step.
    wanted = [Request(f"r{i}", [i] * 200, 5, True) for i in range(16)]
    record = serve(engine, Policy(kind="fixed", threshold=8), wanted)
    check_complete(record, wanted)
    assert mixed_steps(record) == 0
    assert max(step.prefill_tokens for step in record.steps) == 512
    assert refills(record) == [8, 8]


def test_the_latency_guard_admits_before_k_is_reached_and_says_so(engine):
    wanted = requests(40, mean_output=20)
    plain = serve(engine, Policy(kind="fixed", threshold=8), wanted)
    # All requests of a run wait from its start, so that a guard this short always holds.
    guarded = serve(engine, Policy(kind="fixed", threshold=8, max_hold_s=1e-6), wanted)
    check_complete(guarded, wanted)
    assert mixed_steps(guarded) == 0
    causes = [step.refill_cause for step in guarded.steps if step.prefill_tokens]
    assert causes[0] == "idle"
    assert causes.count("max_hold") >= 8
    assert {step.refill_cause for step in plain.steps} <= {"", "idle", "threshold", "drain"}
    assert len(refills(guarded)) > 2 * len(refills(plain))
    # A guard that nobody waits for changes nothing.
    patient = serve(engine, Policy(kind="fixed", threshold=8, max_hold_s=1e6), wanted)
    assert refills(patient) == refills(plain)


def test_adaptive_moves_k_as_the_lengths_change(engine):
    table = ThresholdTable([0.05], [2, 6])
    policy = Policy(
        kind="adaptive", threshold=2, table=table, update_interval=8, initial_probability=0.01
    )
    wanted = [Request(f"r{i}", [1, 2, 3], 4, True) for i in range(64)]
    record = serve(engine, policy, wanted)
    check_complete(record, wanted)
    assert mixed_steps(record) == 0
    assert [update.completions for update in record.history] == list(range(8, 65, 8))
    assert record.history[-1].threshold == 6
    assert record.history[-1].termination_probability == pytest.approx(0.25, rel=0.01)
    assert {step.threshold for step in record.steps} == {2, 6}


@pytest.mark.rare
def test_a_shift_of_the_lengths_is_followed_within_two_updates(engine):
    # The run ends with two update intervals of completions of the new law.
    interval, before, after = 16, 32, 32
    random = np.random.default_rng(7)
    lengths = [*random.geometric(1 / 64, before), *random.geometric(1 / 512, after)]
    wanted = [
        Request(f"r{i}", [1 + i, 2, 3], int(min(length, 1200)), True)
        for i, length in enumerate(lengths)
    ]
    policy = Policy(
        kind="adaptive",
        table=ThresholdTable([1 / 181], [4, 1]),
        update_interval=interval,
        estimator="completions_per_token",
        window=2 * interval,
        initial_probability=1 / 64,
    )
    record = serve(engine, policy, wanted)
    check_complete(record, wanted)
    assert mixed_steps(record) == 0
    new = np.cumsum([int(row.request_id[1:]) >= before for row in record.requests])
    own = [int(new[update.completions - 1]) for update in record.history]
    last_before = next(i for i, count in enumerate(own) if count > interval // 2) - 1
    followed = next(i for i, count in enumerate(own) if count >= 2 * interval)
    assert record.history[last_before].termination_probability > 1 / 128
    assert record.history[followed].termination_probability == pytest.approx(1 / 512, rel=0.4)
    assert record.history[followed].threshold == 4


def test_step_times_add_up_to_the_clock(engine):
    record = serve(engine, Policy(kind="fixed", threshold=3), requests(60, mean_output=30))
    summed = sum(step.duration_s for step in record.steps)
    assert summed <= record.steps[-1].done_s
    assert all(step.duration_s > 0 for step in record.steps)


def test_an_impossible_request_is_refused_and_the_engine_goes_on(engine):
    too_long = [*requests(3), Request("long", [1] * 2100, 5, True)]
    with pytest.raises(EngineError, match="2048"):
        serve(engine, Policy(kind="fixed", threshold=2), too_long)
    wanted = requests(10)
    check_complete(serve(engine, Policy(kind="fixed", threshold=2), wanted), wanted)


def test_too_little_kv_memory_still_serves_everything_unmixed(tiny_model, tmp_path):
    # 5 blocks of 128 tokens, one of them vLLM's own: at most 4 of the 8 slots can be filled.
    wanted = [Request(f"r{i}", [i] * 100, 20, True) for i in range(12)]
    with opened(tiny_model, tmp_path, num_kv_blocks=5, max_model_len=256) as engine:
        record = serve(engine, Policy(kind="fixed", threshold=2), wanted)
    end_engines(tmp_path)
    got = {row.request_id: row.output_tokens for row in record.requests}
    assert got == {request.request_id: 20 for request in wanted}
    assert mixed_steps(record) == 0
    assert max(step.running for step in record.steps) <= 4
    # No refill is begun that memory cannot fill with k requests.
    assert [s for s in record.steps if not s.prefill_tokens and not s.decode_requests] == []
    assert min(refills(record)) >= 2


def test_unsupported_vllm_settings_are_refused_before_the_weights_are_loaded(tiny_model, tmp_path):
    options = {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}
    engine = opened(tiny_model, tmp_path, vllm_options=options)
    with pytest.raises(EngineError, match="remove speculative_config"), engine:
        pytest.fail("an engine with speculative decoding must not open")
    (log,) = tmp_path.glob("*.log")
    assert "Loading weights" not in log.read_text()


def test_records_become_frames(engine):
    record = serve(engine, Policy(kind="fixed", threshold=3), requests(12))
    steps, rows = record.steps_frame(), record.requests_frame()
    assert len(steps) == len(record.steps)
    assert steps["duration_s"].dtype == "float64"
    assert rows["output_tokens"].sum() == steps["decode_requests"].sum() + len(rows)
