"""`pdswitch kstar`, and the same command under its older name `python -m pdswitch.theory`."""

import json
import subprocess
import sys

import pytest

from pdswitch.cli import main
from pdswitch.theory import __main__ as older

FIVE = (
    "--n-slots 256 --termination-probability 0.0078 "
    "--alpha-p 0.0032 --alpha-d 0.0045 --beta-d 2.8e-5"
)


@pytest.mark.parametrize("command", ["pdswitch kstar", "pdswitch.theory"])
def test_k_star_from_five_numbers(root, command):
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), *FIVE.split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=root / "workflow",
    )
    assert done.stdout.startswith("k* = 25 of 256 slots")
    assert "published single-exit  134" in done.stdout


def test_json(capsys):
    assert main(["kstar", *FIVE.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["k_star"], found["k_star_corrected"], found["k_star_single_exit"]) == (
        25,
        24,
        134,
    )
    low, high = found["p_range_of_k_star"]
    assert low < 0.0078 < high
    rows = {row["threshold"]: row for row in found["thresholds"]}
    assert {1, 24, 25, 134, 256} <= set(rows)
    assert rows[25]["loss_percent"] < 0.1 < 10 < rows[134]["loss_percent"]
    assert rows[25]["corrected"] == pytest.approx(rows[25]["exact"], rel=1e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        "--n-slots 1 --termination-probability 0.5 --alpha-p 0 --alpha-d 0.1",
        "--n-slots 8 --termination-probability 0.5 --alpha-p 1 --alpha-d 0",
        "--n-slots 8 --termination-probability 1 --alpha-p 1 --alpha-d 1",
        "--n-slots 300 --termination-probability 1e-9 --alpha-p 1 --alpha-d 1",
    ],
)
def test_limits_print_a_table_and_valid_json(arguments, capsys):
    assert main(["kstar", *arguments.split()]) == 0
    assert "k* = " in capsys.readouterr().out
    assert main(["kstar", *arguments.split(), "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))


WRONG = "--n-slots 8 --termination-probability 1.5 --alpha-p 1 --alpha-d 1"


def test_an_error_is_one_sentence():
    with pytest.raises(SystemExit) as ended:
        main(["kstar", *WRONG.split()])
    assert str(ended.value) == (
        "error: termination_probability must be in (0, 1], got 1.5; "
        "it is 1 / mean output length in tokens"
    )


def test_the_older_command_keeps_its_status_and_its_sentence(capsys):
    assert older.main(WRONG.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("pdswitch.theory: termination_probability must be in (0, 1], got 1.5")
    assert error.count("\n") == 1
