"""Judge and sum up all runs of one dataset: results, samples that were cut, timeline."""

import argparse
import json
from pathlib import Path

import msgspec
import pandas as pd

from pdswitch.analysis.results import (
    dataset_results,
    load_run,
    phases_of_run,
    run_rows,
    truncated_samples,
)
from pdswitch.analysis.termination import read_termination
from pdswitch.errors import InputError
from pdswitch.files import read_json, write_json, write_parquet
from pdswitch.report.wording import headline
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument(
        "--settings",
        type=json.loads,
        required=True,
        help="model, tensor_parallel_size, num_requests, repeats, lengths, "
        "exclude_degenerate_throughput; as JSON",
    )
    parser.add_argument("--prompts", type=Path, required=True, help="prompts.parquet")
    parser.add_argument("--termination", type=Path, required=True, help="termination.json")
    parser.add_argument("--requests", type=Path, required=True, help="of the termination run")
    parser.add_argument("--threshold", type=Path, required=True, help="threshold.json")
    parser.add_argument("--online", type=Path, required=True, help="run.json of the online run")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run.json of the sweep")
    parser.add_argument(
        "--slots", type=Path, nargs="*", default=[], help="slots.json where N is N*"
    )
    parser.add_argument("--results", type=Path, required=True, help="output: results JSON")
    parser.add_argument("--table", type=Path, required=True, help="output: one row per run")
    parser.add_argument("--truncated", type=Path, required=True, help="output: JSON")
    parser.add_argument("--timeline", type=Path, required=True, help="output: JSON")
    arguments = parser.parse_args()
    settings = arguments.settings
    requests = pd.read_parquet(arguments.requests)
    loops = requests.loc[requests["degenerate"], "request_id"]
    excluded = frozenset(loops if settings["exclude_degenerate_throughput"] else ())
    if len(excluded) == len(requests):
        raise InputError(
            f"every answer of {arguments.dataset} is a repetition loop, so that "
            "exclude_degenerate_throughput leaves nothing to count; set it to false, or sampling "
            "with a temperature"
        )
    replayed = settings["lengths"] != "natural"
    slots = read_json(arguments.slots[0]) if arguments.slots else None
    judged = (replayed, excluded, slots is not None)
    runs = [load_run(path.parent, *judged) for path in arguments.runs]
    online = load_run(arguments.online.parent, *judged)
    results = dataset_results(
        arguments.dataset,
        settings,
        read_json(arguments.threshold),
        msgspec.to_builtins(read_termination(arguments.termination)),
        runs,
        online,
        pd.read_parquet(arguments.online.parent / "kstar_history.parquet"),
        slots,
    )
    results["verdict"]["sentence"] = headline(results)
    write_parquet(arguments.table, run_rows(arguments.dataset, settings["model"], [*runs, online]))
    write_json(arguments.truncated, truncated_samples(requests, pd.read_parquet(arguments.prompts)))
    star = [run for run in runs if run.label == str(results["k_star"])]
    write_json(arguments.timeline, phases_of_run(star[0].steps))
    write_json(arguments.results, results)
    print(results["verdict"]["sentence"])


if __name__ == "__main__":
    main()
