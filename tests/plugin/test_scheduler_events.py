"""The policy under everything vLLM does to a request: abort, pause, preemption, n > 1, grammars, …

`scheduler_scenarios.py` plays it in a process of its own, once with vLLM's plain loop and once with
the loop of asynchronous scheduling, in which the scheduler works one step ahead of the outputs.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pdswitch.plugin.record import RunRecord, Step
from pdswitch.record import decode_record

pytestmark = pytest.mark.slow

N_SLOTS = 8


class Played:
    """Results and records of all scenarios."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = json.loads((folder / "results.json").read_text())

    def __getitem__(self, scenario: str):
        result = self.results[scenario]
        assert "error" not in result, result["error"]
        return result["result"]

    def record(self, name: str) -> RunRecord:
        """The record kept under a name; no step of it mixes phases."""
        record = decode_record((self.folder / f"{name}.record").read_bytes())
        mixed = [s.step for s in record.steps if s.prefill_tokens and s.decode_requests]
        assert mixed == []
        return record

    def wrote(self, name: str) -> bool:
        return (self.folder / f"{name}.record").exists()


@pytest.fixture(scope="module", params=["plain", "one-step-behind"])
def played(request, root, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenarios")
    script = root / "tests/support/scheduler_scenarios.py"
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, script, tiny_model, folder, request.param],
            env=os.environ | {"PYTHONPATH": str(root / "workflow")},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=280,
        )
    assert done.returncode == 0, (folder / "log").read_text()[-3000:]
    return Played(folder)


def lengths(outputs) -> dict[str, list[int]]:
    return {name: [one["tokens"] for one in answers] for name, answers in outputs.items()}


def test_aborted_requests_leave_the_rest_as_it_was(played):
    outputs = played["aborts"]
    record = played.record("aborts")
    gone = {5, 7, 20, 23}
    assert lengths(outputs) == {f"r{i}": [5 + i % 11] for i in range(24) if i not in gone}
    aborted = [row for row in record.requests if row.finish_reason == "abort"]
    assert len(record.requests) == 24
    assert len(aborted) == 4
    # Two of them had not got a slot.
    assert sum(row.output_tokens == 0 for row in aborted) == 2


def test_slots_freed_by_aborts_count_towards_k(played):
    for step in played.record("aborts").steps:
        if step.refill_cause == "threshold":
            assert step.admitted >= 3


def test_a_run_that_is_aborted_before_it_is_complete_holds_nothing_up(played):
    assert lengths(played["abort_before_the_first_step"]) == {f"plain{i}": [10] for i in range(4)}
    assert not played.wrote("never")


def test_a_run_that_never_gets_complete_begins_after_its_patience(played):
    assert played["incomplete_run"]["held"] == 0
    assert len(played["incomplete_run"]["outputs"]) == 4
    record = played.record("incomplete")
    assert len(record.requests) == 4
    # The latencies of its requests contain the time they were held.
    assert all(row.arrival_s < -0.25 for row in record.requests)


def test_a_run_after_an_abandoned_one_is_its_own(played):
    assert lengths(played["run_abandoned_midway"]) == {f"b{i}": [6] for i in range(10)}
    record = played.record("following")
    assert len(record.requests) == 10
    assert record.steps[0].admitted == N_SLOTS
    assert sum(step.admitted for step in record.steps) == 10


def test_a_run_ordered_while_another_is_served_takes_over(played):
    outputs = lengths(played["run_replaced_midway"])
    assert outputs == {f"a{i}": [20] for i in range(6)} | {f"b{i}": [6] for i in range(10)}
    assert len(played.record("replacing").requests) == 10


def test_an_order_does_not_spoil_the_record_of_another_client(played):
    outputs = played["order_during_a_recorded_run"]
    assert outputs.pop("b0")[0]["reason"] == "error"
    assert outputs.pop("too_late")[0]["reason"] == "error"
    assert lengths(outputs) == {f"a{i}": [20] for i in range(6)} | {
        f"b{i}": [6] for i in range(1, 4)
    }
    record = played.record("undisturbed")
    assert [row.output_tokens for row in record.requests] == [20] * 6
    assert not played.wrote("disturbing")
    log = (played.folder / "log").read_text()
    assert "would spoil the record of the run in progress; order again later" in log
    assert "the run has all its requests; order again later" in log


def test_a_run_among_other_people_s_requests_is_its_own_and_stops_nobody(played):
    found = played["run_among_other_requests"]
    assert found["meanwhile"] >= 8  # two requests, five steps, one of them behind
    expected = {"early": (2, 60), "mine": (3, 8), "late": (3, 40)}
    assert lengths(found["outputs"]) == {
        f"{name}{i}": [tokens] for name, (count, tokens) in expected.items() for i in range(count)
    }
    record = played.record("among")
    assert [row.output_tokens for row in record.requests] == [8] * 3
    # It ended with its own last request, not with those that came after it.
    assert record.steps[-1].running > 0


def test_a_record_that_cannot_be_written_ends_no_engine(played):
    assert lengths(played["record_cannot_be_written"]) == {"r0": [10], "r1": [10]}


def test_stop_strings_are_endings_to_the_adaptive_policy(played):
    outputs = played["stop_strings"]
    assert {answers[0]["reason"] for answers in outputs.values()} == {"stop"}
    record = played.record("stop_strings")
    # vLLM's core sees them aborted.
    assert {row.finish_reason for row in record.requests} == {"abort"}
    assert [update.completions for update in record.history] == [8, 16, 24, 32]
    assert record.history[-1].threshold == 6


def test_a_client_that_hangs_up_is_no_completion(played):
    outputs = played["hang_ups"]
    assert lengths(outputs) == {"served0": [30], "served1": [30]}
    record = played.record("hang_ups")
    assert sum(row.finish_reason == "abort" for row in record.requests) == 6
    assert [update.completions for update in record.history] == [1, 2]


def test_every_answer_of_a_request_with_n_above_one_is_a_request_of_the_run(played):
    assert lengths(played["parallel_sampling"]) == {f"r{i}": [6 + i] * 4 for i in range(4)}
    record = played.record("parallel_sampling")
    assert len(record.requests) == 16
    assert record.steps[0].admitted == N_SLOTS
    assert {step.threshold for step in record.steps} == {3}


def test_equal_orders_are_one_run(played):
    assert len(played["orders_with_every_request"]) == 20
    record = played.record("every_request")
    assert len(record.requests) == 20
    assert record.steps[0].admitted == N_SLOTS


def test_a_bad_order_ends_its_request_with_an_error_and_nothing_else(played):
    outputs = played["bad_orders"]
    bad = {"no_json", "no_mapping", "no_policy", "too_large", "no_requests", "foreign_path"}
    bad |= {"foreign_path_in_a_mapping", "too_many", "too_long", "wide_window", "nul"}
    assert {name for name, (one,) in outputs.items() if one["reason"] == "error"} == bad
    assert lengths({name: outputs[name] for name in ("good0", "good1")}) == {
        "good0": [20],
        "good1": [5],
    }
    log = (played.folder / "log").read_text()
    assert "threshold 9 exceeds the 8 slots of this engine" in log
    assert "no order of a run: requests must be from 1 to 2147483647, got 0" in log
    assert "a run has at most 10000 requests on this server" in log
    assert "an order has at most 65536 characters" in log
    assert "window must be from 1 to 100000, got 9223372036854775808" in log
    assert "record_path is no path" in log
    # A client over HTTP must not have files written where it likes.
    assert "record_path is the name of a file, of at most 200 letters" in log
    assert not played.wrote("foreign")


def test_a_streaming_session_is_refused_under_a_policy(played):
    outputs = played["streaming_input"]
    assert lengths({"r0": outputs["r0"]}) == {"r0": [10]}
    assert outputs["session"][0]["reason"] == "error"
    assert "send it under the policy mixed" in (played.folder / "log").read_text()


def test_refills_follow_vllms_priorities(played):
    names = played["priorities"]["names"]
    record = played.record("priorities")
    admitted = {row.request_id: row.admitted_s for row in record.requests}
    order = [admitted[names[f"r{i:02d}"]] for i in range(24)]
    # The last to come has the highest priority.
    assert order == sorted(order, reverse=True)
    assert order[0] > order[-1]


def test_a_pause_in_the_middle_of_a_chunked_prefill_mixes_nothing(played):
    outputs = lengths(played["pause_new_in_a_chunked_refill"])
    assert outputs == {f"short{i}": [40] for i in range(3)} | {f"long{i}": [8] for i in range(6)}
    record = played.record("pause_new")
    assert sum(step.prefill_tokens for step in record.steps) == 3 * 20 + 6 * 300
    # While it was paused the three or four requests that had begun went on.
    paused = [step.waiting for step in record.steps[4:10]]
    assert min(paused) > 0
    assert all(step.decode_requests for step in record.steps[4:10])


def test_standing_still_loses_nothing(played):
    assert lengths(played["pause_all"]["outputs"]) == {f"r{i}": [12] for i in range(12)}
    record = played.record("pause_all")
    assert sum(step.prefill_tokens for step in record.steps) == 12 * 200


def test_a_pause_that_aborts_all_leaves_a_clean_scheduler(played):
    assert played["pause_by_abort"]["held"] == 0
    assert lengths(played["pause_by_abort"]["outputs"]) == {f"b{i}": [5] for i in range(10)}
    assert len(played.record("run_after_pause").requests) == 10


def test_the_slots_are_those_that_vllm_admits_to(played):
    for step in played.record("equal").steps:
        assert step.running <= N_SLOTS
        assert step.admitted in (0, N_SLOTS)


def test_preempted_requests_come_back_in_refills(played):
    assert lengths(played["preemption_of_all"]) == {f"r{i}": [15] for i in range(12)}
    record = played.record("preemption")
    assert sum(row.preemptions for row in record.requests) == N_SLOTS
    assert sum(step.preempted for step in record.steps) == N_SLOTS
    assert sum(step.admitted for step in record.steps) == 12 + N_SLOTS


def test_requests_preempted_for_want_of_memory_get_all_their_tokens(played):
    outputs = lengths(played["preemption_for_want_of_memory"])
    assert outputs == {f"r{i}": [90 + i] for i in range(12)}
    record = played.record("no_memory")
    assert sum(step.preempted for step in record.steps) > 0
    rows = {row.request_id: row for row in record.requests}
    assert all(row.first_token_s <= row.finish_s for row in rows.values())


def test_prefix_cache_hits_shorten_refills_and_mix_nothing(played):
    outputs = lengths(played["prefix_cache"])
    assert outputs == {f"r{i}": [5 + i % 4] for i in range(20)}
    record = played.record("prefix_cache")
    cached = sum(step.cached_tokens for step in record.steps)
    assert cached >= 12 * 128
    assert cached + sum(step.prefill_tokens for step in record.steps) == 20 * 140


def test_structured_output_is_served_unmixed(played):
    outputs = played["structured_output"]
    for i in range(1, 24, 2):
        (answer,) = outputs[f"r{i}"]
        assert re.search(rf"[ab]{{{2 + i % 5}}}$", answer["text"])
        assert answer["tokens"] == 3 + i % 5
    assert len(played.record("structured").requests) == 24


def test_a_grammar_that_is_being_compiled_holds_up_no_decode_and_is_not_missed(played):
    result = played["grammars_that_take_their_time"]
    # 20 steps: one refill, then nothing but decodes.
    assert result["before"]["r0"] >= 18
    assert result["before"]["slow"] == 0
    # Its refill is due as soon as the grammar is there, not only when another request ends.
    assert result["after"] >= 2
    # And the wait for it is not taken for a lack of KV memory.
    record = played.record("slow_grammar")
    assert not [s for s in record.steps if s.refill_cause and not s.prefill_tokens]


def test_the_guard_counts_the_wait_of_those_it_could_admit(played):
    result = played["a_guard_beside_a_grammar"]
    assert result["held"] == 0
    assert result["served"] >= 1
    assert sorted(len(answers) for answers in result["outputs"].values()) == [1, 1, 1]


def test_steps_without_work_are_no_lack_of_kv_memory(played):
    assert len(played["equal_lengths"]) == 24
    record = played.record("equal")
    assert [step.admitted for step in record.steps if step.admitted] == [8, 8, 8]
    assert not [s for s in record.steps if s.refill_cause and not s.prefill_tokens]


def refills(record: RunRecord) -> list[list[Step]]:
    """The steps of each refill."""
    found: list[list[Step]] = []
    for step in record.steps:
        if step.refill_cause == "continued":
            found[-1].append(step)
        elif step.refill_cause:
            found.append([step])
    return found


@pytest.mark.parametrize("seed", range(24))
def test_random_workloads_keep_to_their_policy(played, seed):
    run = played["random_workloads"][f"random{seed}"]
    policy, aborted = run["policy"], set(run["aborted"])
    got, asked = lengths(run["outputs"]), run["lengths"]
    # An abort may come too late for a request whose last token is on its way.
    assert asked.keys() - aborted <= got.keys()
    assert all(tokens == asked[name] for name, tokens in got.items())
    record = played.record(f"random{seed}")
    assert len(record.requests) == len(asked)
    assert sum(step.admitted for step in record.steps) <= len(asked)
    for steps in refills(record):
        first = steps[0]
        waiting = first.waiting + first.admitted
        free = N_SLOTS - (first.running - first.admitted)
        k = first.threshold
        held = {
            "idle": free == N_SLOTS,
            "threshold": free >= k,
            "drain": policy["drain"] == "eager" and waiting <= free < k,
            "max_hold": policy["max_hold_s"] is not None and free < k,
        }
        assert held[first.refill_cause]
        if not aborted:
            assert sum(step.admitted for step in steps) == min(free, waiting)


def test_what_cannot_keep_the_policy_is_refused_with_a_remedy(played):
    sentences = played["refusals"]
    assert sentences.pop("nothing") == "accepted"
    remedies = {
        "setting": "unknown field `polcy`; see docs/serving.md",
        "slots": "use a threshold from 1 to 8; see docs/serving.md",
        "pipeline": "pipeline_parallel_size=1",
        "speculative": "remove speculative_config",
        "kv_transfer": "remove kv_transfer_config",
        "ec_transfer": "remove ec_transfer_config",
        "lora": "remove enable_lora",
        "pooling": "remove scheduler_cls",
        "interval": "remove prefill_schedule_interval",
    }
    assert sentences.keys() == remedies.keys()
    assert all(remedy in sentences[name] for name, remedy in remedies.items())
