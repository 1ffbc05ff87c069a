"""Compute N*, the slots that the KV memory holds with at most the tolerated risk to run out."""

import argparse
from pathlib import Path

import msgspec

from pdswitch.analysis.kv_slots import KvBudget, safe_slots
from pdswitch.analysis.termination import read_termination
from pdswitch.files import read_json, write_json
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=Path, required=True, help="kv_budget.json")
    parser.add_argument("--threshold", type=Path, required=True, help="threshold.json")
    parser.add_argument("--termination", type=Path, required=True, help="termination.json")
    parser.add_argument("--oom-tolerance", type=float, required=True, help="epsilon")
    parser.add_argument("--num-requests", type=int, required=True, help="of the sweep")
    parser.add_argument("--output", type=Path, required=True, help="slots.json")
    arguments = parser.parse_args()
    slots = safe_slots(
        msgspec.convert(read_json(arguments.budget), KvBudget),
        read_json(arguments.threshold),
        msgspec.to_builtins(read_termination(arguments.termination)),
        arguments.oom_tolerance,
        arguments.num_requests,
    )
    write_json(arguments.output, slots)
    print(f"N* = {slots['n_slots']} slots in {slots['budget']['tokens']} KV tokens")


if __name__ == "__main__":
    main()
