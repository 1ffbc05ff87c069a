"""Describe a model for the other stages."""

import argparse
from pathlib import Path

import msgspec

from pdswitch.files import write_json
from pdswitch.model import describe_model
from pdswitch.stage import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="its name in the config")
    parser.add_argument("--revision", help="hub revision")
    parser.add_argument("--source", required=True, help="hub id or folder that it is loaded from")
    parser.add_argument("--output", type=Path, required=True, help="model.json")
    arguments = parser.parse_args()
    manifest = describe_model(arguments.model, arguments.source, arguments.revision)
    write_json(arguments.output, msgspec.to_builtins(manifest))


if __name__ == "__main__":
    main()
