"""Serve the requests under the adaptive policy: p is estimated and k* looked up as they end."""

import argparse
import json
from pathlib import Path

import msgspec

from pdswitch.engine.job import add_engine_arguments, engine_of
from pdswitch.files import read_json, write_parquet
from pdswitch.measurement import add_request_arguments, measure, requests_of
from pdswitch.policy import Policy, ThresholdTable


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_engine_arguments(parser)
    add_request_arguments(parser)
    parser.add_argument("--threshold-json", type=Path, required=True, help="table p -> k*")
    parser.add_argument("--policy", type=json.loads, required=True, help="Policy fields, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder for the records")
    arguments = parser.parse_args()
    theory = read_json(arguments.threshold_json)
    # Online means knowing no length beforehand: the run starts at the k of the offline p, as a
    # server would be configured, and forgets it at the rate of the moving average.
    policy = Policy(
        kind="adaptive",
        threshold=theory["k_star"],
        table=msgspec.convert(theory["table"], type=ThresholdTable),
        initial_probability=theory["termination_probability"],
        **arguments.policy,
    )
    with engine_of(arguments) as engine:
        run = measure(engine, policy, requests_of(arguments), arguments.sampling, label="online k*")
    run.write(arguments.output)
    write_parquet(arguments.output / "kstar_history.parquet", run.record.history_frame())


if __name__ == "__main__":
    main()
