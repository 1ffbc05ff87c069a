"""Say how much KV memory an engine has: what it resolved, or what the config's sizes leave."""

import argparse
from pathlib import Path

import msgspec

from pdswitch.analysis.kv_slots import MemoryOptions, kv_budget
from pdswitch.files import read_json, write_json
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", type=Path, required=True, help="run.json of the profile")
    parser.add_argument("--memory", required=True, help="MemoryOptions, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="kv_budget.json")
    arguments = parser.parse_args()
    options = msgspec.json.decode(arguments.memory, type=MemoryOptions)
    engine = read_json(arguments.profile)["engine"]
    budget = kv_budget(options, engine)
    described = budget.described()
    write_json(arguments.output, described)
    print(f"{budget.blocks} KV blocks, {described['tokens']} tokens ({budget.source})")


if __name__ == "__main__":
    main()
