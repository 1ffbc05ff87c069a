"""Orders of runs, and when a run begins and ends; without vLLM."""

import json

import pytest

from pdswitch.policy import Policy
from pdswitch.run import Run, RunOrder, SchedulerOptions, read_order

FIXED = {"kind": "fixed", "threshold": 2}


def test_an_order_comes_as_a_mapping_or_as_text():
    fields = {"policy": FIXED, "requests": 5}
    order = RunOrder(Policy(kind="fixed", threshold=2), 5)
    assert read_order(fields, None) == read_order(json.dumps(fields), None) == order


@pytest.mark.parametrize(
    "value",
    [
        "junk",
        "[1]",
        {"policy": FIXED, "size": 3},
        {"requests": 2},
        {"policy": {"kind": "fixed", "threshold": 0}},
        7,
        None,
    ],
)
def test_what_is_no_order_is_refused(value):
    with pytest.raises(ValueError, match=r"extra_args\['pdswitch'\] is no order of a run"):
        read_order(value, None)


def test_clients_over_http_write_into_the_servers_folder_only(tmp_path):
    def ordered(path: str, folder: str | None) -> RunOrder:
        return read_order(json.dumps({"policy": FIXED, "record_path": path}), folder)

    assert ordered("x.record", str(tmp_path)).record_path == str(tmp_path / "x.record")
    for path, folder in [("x", None), ("/etc/x", str(tmp_path)), ("../x", str(tmp_path))]:
        with pytest.raises(ValueError, match="the name of a file in the folder"):
            ordered(path, folder)
    # Who calls vLLM in Python could write any file himself.
    assert read_order({"policy": FIXED, "record_path": "/a/b"}, None).record_path == "/a/b"


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


def test_a_run_s_threshold_must_fit():
    with pytest.raises(ValueError, match="threshold 9 exceeds the 8 slots"):
        Run(RunOrder(Policy(kind="fixed", threshold=9)), n_slots=8)


def test_the_server_s_policy_is_mixed_unless_it_says_otherwise():
    assert SchedulerOptions().policy == Policy(kind="mixed")
