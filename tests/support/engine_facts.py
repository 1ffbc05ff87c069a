"""Starts an engine as a job does, and writes down what it is: python engine_facts.py --help."""

import argparse
import json
from pathlib import Path

from pdswitch.engine.client import Engine
from pdswitch.engine.job import add_engine_arguments, run_job


def main() -> None:
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    def write(engine: Engine) -> None:
        host = Path(f"/proc/{engine.facts['pid']}/environ")
        variables = dict(line.split("=", 1) for line in host.read_text().split("\0") if line)
        arguments.output.write_text(json.dumps({"facts": engine.facts, "variables": variables}))

    run_job(__file__, arguments, [arguments.output], write)


if __name__ == "__main__":
    main()
