"""Serve the requests under the adaptive policy: p is estimated and k* looked up as they end."""

import argparse
import json
from pathlib import Path

import msgspec

from pdswitch.engine.client import Engine
from pdswitch.engine.job import add_engine_arguments, engine_job, run_job
from pdswitch.engine.measurement import RUN_FILES, add_request_arguments, measure, requests_of
from pdswitch.files import read_json, write_parquet
from pdswitch.plugin.policy import Policy

HISTORY = "kstar_history.parquet"


@engine_job
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_engine_arguments(parser)
    add_request_arguments(parser)
    parser.add_argument("--policy", type=Path, required=True, help="adaptive_policy.json")
    parser.add_argument(
        "--options", type=json.loads, required=True, help="its other fields, as JSON"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the records")
    arguments = parser.parse_args()
    fields = {"kind": "adaptive"} | read_json(arguments.policy) | arguments.options
    policy = msgspec.convert(fields, type=Policy)

    def serve(engine: Engine) -> None:
        run = measure(engine, policy, requests_of(arguments), arguments.sampling, label="online k*")
        write_parquet(arguments.output / HISTORY, run.record.history_frame())
        run.write(arguments.output)

    outputs = [arguments.output / name for name in (HISTORY, *RUN_FILES)]
    run_job(__file__, arguments, outputs, serve)


if __name__ == "__main__":
    main()
