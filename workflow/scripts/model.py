"""Describe a model for the other stages."""

import argparse
from pathlib import Path

import msgspec

from pdswitch.checkpoint import refuse_broken
from pdswitch.files import write_json
from pdswitch.model import describe_model
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="its name in the config")
    parser.add_argument("--revision", help="hub revision")
    parser.add_argument("--source", required=True, help="hub id or folder that it is loaded from")
    parser.add_argument("--load-format", default="auto", help="of the engine")
    parser.add_argument("--output", type=Path, required=True, help="model.json")
    arguments = parser.parse_args()
    if Path(arguments.source).is_dir():
        refuse_broken(arguments.model, Path(arguments.source), arguments.load_format)
    manifest = describe_model(arguments.model, arguments.source, arguments.revision)
    write_json(arguments.output, msgspec.to_builtins(manifest))


if __name__ == "__main__":
    main()
