"""The last words of a failed job, out of its log."""

import os

import pytest

from pdswitch.stages.job_log import last_words

BUG = 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 3\n'


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("starting\nerror: no such model; name another\n", "error: no such model; name another"),
        ("usage: x\nplan.py: error: argument --k\n", "plan.py: error: argument --k"),
        ("demo: 10%|#\rdemo: 20%|##\rerror: too few\n", "error: too few"),
        (
            "error: the engine died. Its log e.log:\n  Traceback (most recent call last):"
            "\n  RuntimeError: no memory\n",
            "error: the engine died. Its log e.log:\n  Traceback (most recent call last):"
            "\n  RuntimeError: no memory",
        ),
        ("error: first\nonce more\nerror: second\n", "error: second"),
        (BUG, "error: KeyError: 3 (a bug; its traceback is in {log})"),
        (f"error: one engine less\n{BUG}", "error: KeyError: 3 (a bug; its traceback is in {log})"),
        ("profile: 10%", None),
        ("", None),
    ],
)
def test_the_last_error_is_given_and_a_bug_by_its_last_line(tmp_path, printed, words):
    log = tmp_path / "job.log"
    log.write_text(printed)
    assert last_words(log) == (words and words.format(log=log))


def test_a_log_of_an_earlier_workflow_says_nothing_of_this_one(tmp_path):
    log = tmp_path / "job.log"
    log.write_text("error: long ago\n")
    os.utime(log, (100, 100))
    assert last_words(log, since=200) is None
    assert last_words(log, since=50) == "error: long ago"


def test_no_log_and_bytes_of_another_encoding_are_no_error(tmp_path):
    assert last_words(tmp_path / "none.log") is None
    (tmp_path / "latin.log").write_bytes(b"caf\xe9\nerror: caf\xe9\n")
    assert last_words(tmp_path / "latin.log").startswith("error: caf")
