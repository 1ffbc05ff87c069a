"""Say how the online run switches, and refuse thresholds of the sweep that N slots cannot have."""

import argparse
from pathlib import Path
from typing import Any

from pdswitch.errors import InputError
from pdswitch.files import read_json, write_json
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threshold", type=Path, required=True, help="threshold.json")
    parser.add_argument(
        "--too-large", type=int, nargs="*", default=[], help="thresholds in k_grid above N"
    )
    parser.add_argument("--policy", type=Path, required=True, help="output: adaptive_policy.json")
    arguments = parser.parse_args()
    theory = read_json(arguments.threshold)
    if arguments.too_large:
        n_slots = theory["n_slots"]
        raise InputError(
            f"k_grid contains {arguments.too_large[0]}, but N* is {n_slots} slots; "
            f"use values from 1 to {n_slots}"
        )
    write_json(arguments.policy, adaptive_policy(theory))


def adaptive_policy(theory: dict[str, Any]) -> dict[str, Any]:
    """Return what an adaptive `Policy` has of the theory, given the content of `threshold.json`.

    Online means knowing no length beforehand: the run starts at the k of the offline p, as a
    server would be configured, and forgets it at the rate of the moving average.
    """
    return {
        "threshold": theory["k_star"],
        "initial_probability": theory["termination_probability"],
        "table": theory["table"],
    }


if __name__ == "__main__":
    main()
