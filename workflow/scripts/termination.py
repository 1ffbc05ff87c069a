"""Serve every request once under vLLM's own policy, ending by itself.

The lengths are replayed by the later stages. With --lengths dataset the requests do not end by
themselves but where the dataset's own answers do: for traces, and for models without real weights.
"""

import argparse
from pathlib import Path

import pandas as pd

from pdswitch.analysis.degenerate import is_degenerate
from pdswitch.engine.client import Engine
from pdswitch.engine.job import add_engine_arguments, engine_job, run_job
from pdswitch.engine.measurement import Measurement, dataset_requests, measure, natural_requests
from pdswitch.files import write_json, write_parquet
from pdswitch.plugin.policy import Policy


@engine_job
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_engine_arguments(parser)
    parser.add_argument("--prompts", type=Path, required=True, help="prompts.parquet")
    parser.add_argument("--max-output-tokens", type=int, required=True)
    parser.add_argument("--lengths", choices=["replay", "natural", "dataset"], default="replay")
    parser.add_argument("--requests", type=Path, required=True, help="output: requests.parquet")
    parser.add_argument("--run", type=Path, required=True, help="output: run.json")
    arguments = parser.parse_args()
    prompts = pd.read_parquet(arguments.prompts)

    def serve(engine: Engine) -> None:
        if arguments.lengths == "dataset":
            requests = dataset_requests(prompts, arguments.max_output_tokens)
        else:
            requests = natural_requests(prompts, arguments.max_output_tokens)
        run = measure(
            engine,
            Policy(kind="mixed"),
            requests,
            arguments.sampling,
            label="natural lengths",
            want_outputs=True,
        )
        served = with_outputs(run, prompts)
        if arguments.lengths == "dataset":
            served["truncated"] = prompts["reference_output_tokens"] > arguments.max_output_tokens
        write_parquet(arguments.requests, served)
        write_json(arguments.run, run.facts)

    run_job(__file__, arguments, [arguments.requests, arguments.run], serve)


def with_outputs(run: Measurement, prompts: pd.DataFrame) -> pd.DataFrame:
    """Return the run's requests in the order of the prompts, with what they generated."""
    requests = run.record.requests_frame().set_index("request_id")
    requests = requests.loc[prompts["request_id"]].reset_index()
    requests["text"] = [output.text for output in run.outputs]
    requests["output_token_ids"] = [output.token_ids for output in run.outputs]
    requests["truncated"] = requests["finish_reason"] == "length"
    requests["degenerate"] = [is_degenerate(output.token_ids) for output in run.outputs]
    return requests


if __name__ == "__main__":
    main()
