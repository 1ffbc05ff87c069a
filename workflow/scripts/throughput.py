"""Measure one run: a fixed threshold k, or vLLM's own mixed policy, once."""

import argparse
from pathlib import Path

from pdswitch.engine.client import Engine
from pdswitch.engine.job import add_engine_arguments, engine_job, run_job
from pdswitch.engine.measurement import RUN_FILES, add_request_arguments, measure, requests_of
from pdswitch.plugin.policy import Policy


@engine_job
def main() -> None:
    """Run the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_engine_arguments(parser)
    add_request_arguments(parser)
    parser.add_argument("--threshold", type=int, help="k; without it the policy is mixed")
    parser.add_argument("--drain", choices=["eager", "strict"], default="eager")
    parser.add_argument("--max-hold-s", type=float, help="latency guard, s; none without it")
    parser.add_argument("--rep", type=int, default=1, help="number of the repeat")
    parser.add_argument("--output", type=Path, required=True, help="folder for the records")
    arguments = parser.parse_args()
    if arguments.threshold is None:
        policy, label = Policy(kind="mixed"), "mixed"
    else:
        policy = Policy(
            kind="fixed",
            threshold=arguments.threshold,
            drain=arguments.drain,
            max_hold_s=arguments.max_hold_s,
        )
        label = f"k={arguments.threshold}"

    def serve(engine: Engine) -> None:
        run = measure(
            engine,
            policy,
            requests_of(arguments),
            arguments.sampling,
            label=f"{label} rep={arguments.rep}",
        )
        run.facts["rep"] = arguments.rep
        run.write(arguments.output)

    run_job(__file__, arguments, [arguments.output / name for name in RUN_FILES], serve)


if __name__ == "__main__":
    main()
