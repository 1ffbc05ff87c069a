"""Convert the checkpoint that a Python package carries to one that vLLM loads."""

import argparse
from pathlib import Path

from pdswitch.model import convert_wheel
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", required=True, help="name of the installed package")
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    arguments = parser.parse_args()
    convert_wheel(arguments.package, arguments.output)


if __name__ == "__main__":
    main()
