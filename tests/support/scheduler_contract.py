"""What the scheduler needs of vLLM, checked on made-up model outputs.

Started by `test_scheduler_contract.py` on the installed vLLM, by `contract.py` on every supported
one. The names of its tests are the rows of the table in docs/vllm_versions.md.
"""

import json
import os
import time
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from pdswitch.plugin.compatibility import read_options
from pdswitch.plugin.record import RunRecord
from pdswitch.plugin.scheduler import SwitchingScheduler
from pdswitch.record import decode_record
from scheduler_harness import Loop, make_request, make_scheduler

N_SLOTS = 8


@pytest.fixture(params=[0, 1], ids=["plain", "one-step-behind"])
def behind(request) -> int:
    return request.param


@pytest.fixture
def scheduler(tmp_path):
    return make(tmp_path)


def make(folder, n_slots=N_SLOTS, **options):
    return make_scheduler(SwitchingScheduler, folder, n_slots, **options)


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


def test_without_allow_orders_none_is_taken(behind, tmp_path):
    scheduler = make(tmp_path, additional={})
    ordered = make_request("ordered", 20, 5, {"policy": fixed(3)})
    bystander = make_request("bystander", 20, 5)
    scheduler.add_request(ordered)
    scheduler.add_request(bystander)
    Loop(scheduler, behind).serve()
    assert ordered.status == RequestStatus.FINISHED_ERROR
    assert bystander.num_output_tokens == 5


def test_orders_are_refused_under_data_parallelism(tmp_path):
    scheduler = make(tmp_path, additional={"pdswitch": {"allow_orders": True}})
    config = scheduler.vllm_config
    for name, value in [("data_parallel_size", 2), ("data_parallel_index", 1)]:
        before = getattr(config.parallel_config, name)
        object.__setattr__(config.parallel_config, name, value)
        with pytest.raises(ValueError, match="cannot be ordered under data parallelism"):
            read_options(config)
        object.__setattr__(config.parallel_config, name, before)
    assert read_options(config).allow_orders


@pytest.mark.parametrize("ordered", [1, 2], ids=["run", "held-run"])
def test_paused_all_stops_everything(scheduler, behind, ordered):
    early = make_request("early", 20, 30)
    scheduler.add_request(early)
    loop = Loop(scheduler, behind)
    for _ in range(4):
        loop.step()
    order = {"policy": fixed(3), "requests": ordered}
    late = make_request("late", 20, 5, order)
    scheduler.add_request(late)
    scheduler.set_pause_state(PauseState.PAUSED_ALL)
    assert [loop.step().total_num_scheduled_tokens for _ in range(4)] == [0] * 4
    scheduler.set_pause_state(PauseState.UNPAUSED)
    scheduler.add_request(make_request("last", 20, 5, order))
    loop.serve()
    assert (early.num_output_tokens, late.num_output_tokens) == (30, 5)


PROMPT = 100
MEMORY_FOR = 10


def refill_sizes(record: RunRecord) -> list[int]:
    return [step.admitted for step in record.steps if step.admitted]


def test_k_keeps_its_meaning_where_memory_is_the_limit(behind, tmp_path):
    """16 slots; memory takes 10 prompts of 7 blocks, which the answers do not outgrow."""
    lengths = [2 + i % 11 for i in range(60)]
    sizes = {}
    for k in (1, 2, 4, 8):
        scheduler = make(tmp_path, n_slots=16, blocks=1 + 7 * MEMORY_FOR)
        record = play(scheduler, behind, tmp_path, fixed(k), lengths, prompt=PROMPT)
        assert all_tokens(record) == {f"r{i}": tokens for i, tokens in enumerate(lengths)}
        assert max(step.running for step in record.steps) == MEMORY_FOR
        # No refill finds less memory than it was begun for.
        assert [s for s in record.steps if s.refill_cause and not s.prefill_tokens] == []
        sizes[k] = refill_sizes(record)
        assert sizes[k][0] == MEMORY_FOR
        assert min(sizes[k][:-1]) >= k
    assert len(sizes[1]) > len(sizes[2]) > len(sizes[4]) > len(sizes[8])


def test_a_prompt_larger_than_what_is_free_waits_for_memory(behind, tmp_path):
    scheduler = make(tmp_path, blocks=1 + 20)
    small = [make_request(f"small{i}", 60, 20) for i in range(3)]
    large = make_request("large", 200, 10)
    order = {"policy": fixed(1), "requests": 4}
    for request in [*small, large]:
        request.sampling_params.extra_args = {"pdswitch": order}
        scheduler.add_request(request)
    Loop(scheduler, behind).serve()
    assert [one.num_output_tokens for one in [*small, large]] == [20, 20, 20, 10]


# What a stranger may write where a number, a name or a list belongs.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**400]),
    st.floats(),
    st.sampled_from([1e-320, 1e-20, 1e-9, 1e300]),
    st.text(max_size=8),
    st.sampled_from(["x\0y", "\ud800", "..", ".", "", "/etc/passwd", "a/b", "n" * 300, "run"]),
    st.lists(st.integers(-1, 9) | st.floats(), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
EDGES = st.lists(st.floats(0, 1), max_size=3, unique=True).map(sorted)
TABLE = EDGES.flatmap(
    lambda edges: st.fixed_dictionaries(
        {
            "p_edges": st.just(edges),
            "thresholds": st.lists(
                st.integers(1, N_SLOTS), min_size=len(edges) + 1, max_size=len(edges) + 1
            ),
        }
    )
)
SHARE = st.floats(0, 1) | st.sampled_from([1e-300, 1e-20, 1e-9, 1.0])
PLAIN = {
    "kind": st.sampled_from(["mixed", "fixed", "adaptive", "adaptive"]),
    "threshold": st.integers(1, N_SLOTS),
    "drain": st.sampled_from(["eager", "strict"]),
    "max_hold_s": st.none() | st.floats(1e-6, 1e6),
    "update_interval": st.integers(1, 2),
    "estimator": st.sampled_from(["ema_length", "ema_inverse", "window", "completions_per_token"]),
    "smoothing": SHARE,
    "window": st.integers(1, 5) | st.just(100_000),
    "initial_probability": st.none() | SHARE,
}


def now_and_then(plain):
    """Mostly what belongs there, and at times something odd."""
    return st.integers(0, 19).flatmap(lambda twentieth: plain if twentieth else ODD)


POLICY = st.fixed_dictionaries(
    {"table": now_and_then(TABLE)}, optional={k: now_and_then(v) for k, v in PLAIN.items()}
)
ORDER = st.fixed_dictionaries(
    {"policy": now_and_then(POLICY)},
    optional={
        "requests": now_and_then(st.integers(1, 4)),
        "record_path": now_and_then(st.just("run.record")),
        "patience_s": now_and_then(st.floats(0, 0.01)),
        "surplus": ODD,
    },
)
SENT = now_and_then(st.one_of(ORDER, ORDER.map(json.dumps)))
TINY = {"kind": "adaptive", "table": {"p_edges": [], "thresholds": [1]}, "update_interval": 1}
ADAPTIVE = {"policy": TINY | {"smoothing": 1, "initial_probability": 1e-20}}
EXAMPLES = int(os.environ.get("PDSWITCH_FUZZ_EXAMPLES", "300"))


def test_no_order_raises_in_the_scheduler(tmp_path_factory):
    """Orders of strangers, and whoever comes beside them is served to the end."""
    folder = tmp_path_factory.mktemp("fuzz")
    records = folder / "records"
    records.mkdir()
    limits = {"allow_orders": True, "longest_hold_s": 0.01, "record_folder": str(records)}
    own = {"kind": "fixed", "threshold": 3}
    scheduler = make(folder, additional={"pdswitch": {"policy": own, **limits}})
    loops = [Loop(scheduler, behind) for behind in (0, 1)]
    number = count()
    taken = set()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(SENT, SENT, st.integers(0, 6), st.integers(0, 1), st.booleans())
    @example({"policy": TINY | {"estimator": "window", "window": 2**63}}, None, 0, 0, False)
    @example(ADAPTIVE | {"record_path": "run\0"}, ADAPTIVE, 0, 1, False)
    @example(ADAPTIVE | {"record_path": "\ud800"}, ADAPTIVE, 0, 1, False)
    @example(ADAPTIVE, ADAPTIVE, 3, 0, False)
    def play_orders(first, second, steps, behind, abort):
        loop = loops[behind]
        i = next(number)
        early, late = (make_request(f"{when}{i}", 20, 8) for when in ("early", "late"))
        ordered = [make_request(f"{i}-{j}", 20, 6) for j in range(2)]
        for request, order in zip(ordered, (first, second), strict=True):
            # Not through SamplingParams: newer versions of vLLM refuse some orders there.
            request.sampling_params.extra_args = {"pdswitch": order}
        scheduler.add_request(early)
        scheduler.add_request(ordered[0])
        for _ in range(steps):
            loop.step()
        scheduler.add_request(late)
        scheduler.add_request(ordered[1])
        if abort:
            scheduler.finish_requests([ordered[0].request_id], RequestStatus.FINISHED_ABORTED)
        loop.serve(limit=100_000)
        assert [early.num_output_tokens, late.num_output_tokens] == [8, 8]
        taken.update(one.status for one in ordered)

    play_orders()
    # Both kinds were among them, those taken and those refused.
    assert taken >= {RequestStatus.FINISHED_LENGTH_CAPPED, RequestStatus.FINISHED_ERROR}
    assert {path.name for path in folder.iterdir()} == {"records", "config.json"}


def test_the_servers_own_adaptive_policy_keeps_no_history(behind, tmp_path):
    own = {"kind": "adaptive", "table": {"p_edges": [0.2], "thresholds": [1, 4]}}
    own |= {"update_interval": 1}
    scheduler = make(tmp_path, additional={"pdswitch": {"policy": own}})
    for i in range(40):
        scheduler.add_request(make_request(f"r{i}", 20, 3))
    Loop(scheduler, behind).serve()
    assert scheduler._default.completions == 40
    assert scheduler._default.threshold == 4
    assert scheduler._default.history == []


def test_a_record_that_grows_too_long_answers_with_an_error(behind, tmp_path, monkeypatch):
    monkeypatch.setattr("pdswitch.plugin.scheduler.MAX_RECORDED_STEPS", 10)
    limits = {"allow_orders": True, "record_folder": str(tmp_path)}
    scheduler = make(tmp_path, additional={"pdswitch": limits})
    order = {"policy": {"kind": "mixed"}, "requests": 2, "record_path": "run"}
    ordered = make_request("ordered", 20, 50, order)
    joined = make_request("joined", 20, 50)
    scheduler.add_request(ordered)
    scheduler.add_request(joined)
    Loop(scheduler, behind).serve()
    assert ordered.status == RequestStatus.FINISHED_ERROR
    assert joined.num_output_tokens == 50
    assert not (tmp_path / "run").exists()


def test_a_hold_ends_though_a_stranger_arrives_all_the_time(behind, tmp_path):
    limits = {"allow_orders": True, "longest_hold_s": 0.2, "max_requests": 1000}
    scheduler = make(tmp_path, additional={"pdswitch": limits})
    order = {"policy": {"kind": "mixed"}, "requests": 1000, "patience_s": 0.1}
    scheduler.add_request(make_request("ordered", 20, 5, order))
    loop = Loop(scheduler, behind)
    begun = time.monotonic()
    for i in count():
        if scheduler.running:
            break
        scheduler.add_request(make_request(f"stranger{i}", 20, 5))
        loop.step()
        time.sleep(0.005)
        assert time.monotonic() - begun < 20
    loop.serve()


def test_a_chain_of_orders_holds_nobody_for_good(behind, tmp_path):
    limits = {"allow_orders": True, "longest_hold_s": 0.2}
    scheduler = make(tmp_path, additional={"pdswitch": limits})
    bystander = make_request("bystander", 20, 5)
    loop, begun = Loop(scheduler, behind), time.monotonic()
    for i in count():
        order = {"policy": {"kind": "mixed"}, "requests": 3, "patience_s": 60 + i}
        scheduler.add_request(make_request(f"ordered{i}", 20, 5, order))
        if i == 0:
            scheduler.add_request(bystander)
        loop.step()
        if bystander.num_output_tokens:
            break
        time.sleep(0.02)
        assert time.monotonic() - begun < 20


def test_a_policy_that_all_clients_ask_for_leaves_nothing_behind(behind, tmp_path):
    scheduler = make(tmp_path, additional={"pdswitch": {"allow_orders": True}})
    loop = Loop(scheduler, behind)
    for i in range(60):
        scheduler.add_request(make_request(f"r{i}", 20, 5, {"policy": fixed(2)}))
        loop.step()
    run = scheduler._run
    assert len(run.orderers) == len(run._arrival) == len(scheduler.requests) < 60
    loop.serve()
    assert scheduler._run is None
