"""Orders of runs, and when a run begins and ends; without vLLM."""

import json

import pytest

from pdswitch.plugin.policy import Policy
from pdswitch.plugin.run import Run, RunOrder, SchedulerOptions, read_order

FIXED = {"kind": "fixed", "threshold": 2}
CLIENTS = SchedulerOptions(allow_orders=True)
TRUSTED = SchedulerOptions(trusted=True)


def test_an_order_comes_as_a_mapping_or_as_text():
    fields = {"policy": FIXED, "requests": 5}
    order = RunOrder(Policy(kind="fixed", threshold=2), 5)
    for options in (CLIENTS, TRUSTED):
        assert read_order(fields, options) == read_order(json.dumps(fields), options) == order


@pytest.mark.parametrize(
    "value",
    [
        "junk",
        "[1]",
        {"policy": FIXED, "size": 3},
        {"requests": 2},
        {"policy": {"kind": "fixed", "threshold": 0}},
        {"policy": FIXED | {"window": 2**63}},
        {"policy": FIXED | {"update_interval": 2**31}},
        {"policy": FIXED | {"smoothing": float("nan")}},
        {"policy": FIXED | {"initial_probability": 1e-20}},
        {"policy": FIXED | {"table": {"p_edges": [float("nan")], "thresholds": [1, 2]}}},
        {"policy": FIXED | {"table": {"p_edges": [], "thresholds": [1] * 70_000}}},
        {"policy": FIXED, "requests": 2**31},
        {"policy": FIXED, "requests": 10**400},
        {"policy": FIXED, "patience_s": float("nan")},
        {"policy": FIXED, "patience_s": -1.0},
        {"policy": FIXED, "record_path": "a\0b"},
        {"policy": FIXED, "record_path": "\ud800"},
        {"policy": FIXED, "record_path": ""},
        '{"policy": {"drain": "\ud800"}}',
        7,
        None,
    ],
)
def test_what_is_no_order_is_refused(value):
    with pytest.raises(ValueError, match=r"extra_args\['pdswitch'\] is no order of a run"):
        read_order(value, TRUSTED)


def test_orders_are_off_unless_the_server_allows_them():
    for value in ({"policy": FIXED}, json.dumps({"policy": FIXED})):
        with pytest.raises(ValueError, match="takes no orders"):
            read_order(value, SchedulerOptions())


@pytest.mark.parametrize("form", [json.dumps, lambda fields: fields], ids=["text", "mapping"])
def test_clients_write_into_the_servers_folder_only(tmp_path, form):
    def ordered(path: str, folder: str | None) -> RunOrder:
        options = SchedulerOptions(allow_orders=True, record_folder=folder)
        return read_order(form({"policy": FIXED, "record_path": path}), options)

    folder = str(tmp_path)
    assert ordered("x.record", folder).record_path == str(tmp_path / "x.record")
    outside = ["/etc/x", "../x", "..", ".", ".hidden", "a/b", "n" * 300, "new\nline"]
    for path, place in [("x", None), *((path, folder) for path in outside)]:
        with pytest.raises(ValueError, match="the name of a file, of at most 200"):
            ordered(path, place)
    # The workflow's own engine writes where its job wants.
    trusted = read_order(form({"policy": FIXED, "record_path": "/a/b"}), TRUSTED)
    assert trusted.record_path == "/a/b"


def test_clients_order_within_the_limits_of_the_server():
    options = SchedulerOptions(allow_orders=True, max_requests=100)
    with pytest.raises(ValueError, match="at most 100 requests on this server"):
        read_order({"policy": FIXED, "requests": 101}, options)
    with pytest.raises(ValueError, match="at most 65536 characters, got 70"):
        read_order(json.dumps({"policy": FIXED}) + " " * 70_000, options)


def test_a_run_begins_when_all_have_arrived():
    run = Run(RunOrder(Policy(), requests=2), n_slots=8)
    run.request_arrived("a", 10.0)
    assert not run.begin(11.0)
    run.request_arrived("b", 12.0)
    assert run.begin(12.5)
    assert run.seconds(13.0) == 0.5


def test_a_run_s_patience_counts_from_the_last_arrival(caplog):
    run = Run(RunOrder(Policy(), requests=3, patience_s=5.0), n_slots=8)
    run.request_arrived("a", 0.0)
    run.request_arrived("b", 4.0)
    assert not run.begin(8.9)
    assert run.begin(9.0)
    assert run.complete
    assert "begins with 2 of 3 requests" in caplog.text


def test_a_hold_ends_however_many_arrive():
    run = Run(RunOrder(Policy(), requests=1000, patience_s=5.0), n_slots=8, longest_hold_s=20.0)
    for second in range(20):
        run.request_arrived(str(second), float(second))
        assert not run.begin(second + 0.5)
    assert run.begin(20.0)


def test_what_a_request_with_an_order_may_not_do_to_a_run():
    order, other = RunOrder(Policy(), 2, "a"), RunOrder(Policy(), 3)
    run = Run(order, n_slots=8)
    run.request_arrived("a", 0.0)
    assert run.excludes(order) == ""
    assert "waits for its first step" in run.excludes(other)
    run.request_arrived("b", 0.0)
    assert run.begin(1.0)
    assert "would spoil the record" in run.excludes(other)
    assert "has all its requests" in run.excludes(order)
    unrecorded = Run(RunOrder(Policy()), n_slots=8)
    unrecorded.request_arrived("a", 0.0)
    assert unrecorded.begin(1.0)
    assert unrecorded.excludes(RunOrder(Policy())) == unrecorded.excludes(other) == ""


def test_a_path_that_names_no_file_ends_no_engine(caplog):
    Run(RunOrder(Policy(), record_path="/"), n_slots=8).write()
    assert "the record of a run was not written" in caplog.text


def test_a_run_s_threshold_must_fit():
    with pytest.raises(ValueError, match="threshold 9 exceeds the 8 slots"):
        Run(RunOrder(Policy(kind="fixed", threshold=9)), n_slots=8)


def test_the_server_s_policy_is_mixed_unless_it_says_otherwise():
    assert SchedulerOptions().policy == Policy(kind="mixed")
