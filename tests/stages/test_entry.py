"""How scripts end: a sentence for the user's mistake, a traceback for a bug."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from pdswitch.stages.entry import stage
from pdswitch.stages.job_log import BUG
from pdswitch.theory import optimal_threshold

COMMAND = "--n-slots 256 --termination-probability 0.0078 --alpha-p 0.0032 --alpha-d 0.0045"


def ended(main) -> str:
    with pytest.raises(SystemExit) as caught:
        stage(main)()
    return str(caught.value)


def test_what_the_library_refuses_is_a_sentence():
    sentence = ended(lambda: optimal_threshold(8, 1.5, 1.0, 1.0))
    assert sentence.startswith("error: termination_probability must be in (0, 1], got 1.5")


@pytest.mark.parametrize(
    "bug",
    [
        lambda: np.zeros(2) + np.zeros(3),
        lambda: json.loads("{"),
        lambda: int("x"),
        lambda: [][0],
        lambda: {}["k"],
    ],
)
def test_a_bug_keeps_its_traceback_and_says_where_to_report_it(bug):
    with pytest.raises((ValueError, LookupError)) as caught:
        stage(bug)()
    assert caught.value.__notes__ == [BUG]


def test_a_bare_value_error_of_ours_is_a_bug():
    def main() -> None:
        raise ValueError("no sentence")

    with pytest.raises(ValueError, match="no sentence"):
        stage(main)()


def test_every_error_of_the_library_that_is_raised_for_users_is_a_user_error(root):
    for module in (root / "workflow").rglob("*.py"):
        assert "raise ValueError(" not in module.read_text(), module


def test_a_file_that_cannot_be_read_is_a_sentence_with_its_path(tmp_path):
    sentence = ended((tmp_path / "gone.json").read_text)
    assert sentence == (
        f"error: {tmp_path}/gone.json: No such file or directory; check the path and its rights"
    )


def test_an_interrupted_script_says_no_more_than_that(capsys):
    def main() -> None:
        raise KeyboardInterrupt

    assert ended(main) == "130"
    assert capsys.readouterr().err == "interrupted\n"


def test_arguments_and_result_pass_through():
    assert stage(lambda a, b=0: a + b)(1, b=2) == 3


PRINTING = r"""
import sys
from pdswitch.stages.entry import stage
@stage
def main():
    print("k\u0302 = 5 \u2013 3.2 \u00d7 10 \u00b7 s \u2264 \u03c4 \u0130 \u6f22 \udc80")
    raise SystemExit("error: \u2026 k\u0302")
main()
"""
PLAIN = {
    "ascii": "k^ = 5 - 3.2 x 10 * s <= tau I ? ?",
    "iso-8859-1": "k^ = 5 - 3.2 \u00d7 10 \u00b7 s <= tau I ? ?",
    "iso-8859-9": "k^ = 5 - 3.2 \u00d7 10 \u00b7 s <= tau \u0130 ? ?",
    "cp1252": "k^ = 5 \u2013 3.2 \u00d7 10 \u00b7 s <= tau I ? ?",
    "utf-8": "k\u0302 = 5 \u2013 3.2 \u00d7 10 \u00b7 s \u2264 \u03c4 \u0130 \u6f22 ?",
}


@pytest.mark.parametrize("encoding", PLAIN)
def test_a_terminal_prints_what_it_can_and_writes_out_the_rest(root, encoding):
    environment = os.environ | {
        "PYTHONPATH": str(root / "workflow"),
        "PYTHONIOENCODING": encoding,
    }
    run = subprocess.run(
        [sys.executable, "-c", PRINTING], env=environment, capture_output=True, check=False
    )
    assert run.stdout.decode(encoding) == PLAIN[encoding] + "\n"
    last = "\u2026 k\u0302" if encoding == "utf-8" else None
    assert run.stderr.decode(encoding).startswith("error: " + (last or ""))
    assert b"Traceback" not in run.stderr


def test_every_script_prints_on_every_terminal(root):
    for script in (root / "workflow/scripts").glob("*.py"):
        assert re.search(r"^@(stage|engine_job)\ndef main\(", script.read_text(), re.M), script


def test_the_command_line_of_the_theory_prints_on_an_ascii_terminal(root):
    run = subprocess.run(
        [sys.executable, "-m", "pdswitch.theory", *COMMAND.split()],
        env=os.environ | {"PYTHONPATH": str(root / "workflow"), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert "asymptotic theta*N" in run.stdout.decode("ascii")
