"""How long the command `pdswitch` takes to start: ``python benchmarks/bench_start.py``.

Rounds of all commands alternate, each in a process of its own. Prints the median wall time over
the rounds, its ratio to Python's own start, and the target. `kstar` whole computes the exact
chain, whose compiled kernels numba loads from its cache; the first call ever compiles them, and is
not counted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"
NUMBERS = "--n-slots=256 --termination-probability=0.0078 --alpha-p=0.0032 --alpha-d=0.0045"
PYTHON = "Python alone"
KSTAR = ["-m", "pdswitch", "kstar"]
COMMANDS = {
    PYTHON: ["-c", ""],
    "import numpy": ["-c", "import numpy"],
    "import numba": ["-c", "import numba"],
    "pdswitch --help": ["-m", "pdswitch", "--help"],
    "pdswitch kstar --help": [*KSTAR, "--help"],
    "pdswitch kstar, whole": [*KSTAR, *NUMBERS.split()],
}
TARGET_S = {"pdswitch --help": 0.5, "pdswitch kstar --help": 0.5, "pdswitch kstar, whole": 0.5}


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(WORKFLOW)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="runs of every command")
    rounds = parser.parse_args().rounds
    for command in COMMANDS.values():
        seconds(command)
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            took[name].append(seconds(command))
    python = statistics.median(took[PYTHON])
    for name, times in took.items():
        median = statistics.median(times)
        verdict = ""
        if target := TARGET_S.get(name):
            verdict = f"   target {target} s   {'met' if median <= target else 'MISSED'}"
        print(f"{name:<24}{median:>7.3f} s{median / python:>7.1f} x{verdict}".rstrip())


if __name__ == "__main__":
    main()
