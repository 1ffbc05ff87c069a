"""Say what is measured: the thresholds of the sweep, and the policy of the online run."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pdswitch.files import read_json, write_json
from pdswitch.grid import k_grid


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threshold", type=Path, required=True, help="threshold.json")
    parser.add_argument("--k-grid", type=json.loads, required=True, help="wanted, as JSON")
    parser.add_argument("--grid", type=Path, required=True, help="output: k_grid.json")
    parser.add_argument("--policy", type=Path, required=True, help="output: adaptive_policy.json")
    arguments = parser.parse_args()
    theory = read_json(arguments.threshold)
    try:
        grid = k_grid(arguments.k_grid, theory["n_slots"], theory["k_star"])
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_json(arguments.grid, grid)
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
