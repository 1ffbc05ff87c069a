"""Estimate p offline, and sum up the lengths of the termination run.

p is estimated from the first requests only, those that the measured runs leave out.
"""

import argparse
from pathlib import Path

import msgspec
import pandas as pd

from pdswitch.analysis.termination import summarise_lengths
from pdswitch.files import write_json
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=Path, required=True, help="of the termination run")
    parser.add_argument("--n-offline", type=int, required=True, help="requests p is estimated from")
    parser.add_argument("--estimator", default="mean", help="offline estimator of p")
    parser.add_argument("--ema-alpha", type=float, default=0.3)
    parser.add_argument("--output", type=Path, required=True, help="termination.json")
    arguments = parser.parse_args()
    columns = ["prompt_tokens", "output_tokens", "truncated", "degenerate"]
    summary = summarise_lengths(
        pd.read_parquet(arguments.requests, columns=columns),
        arguments.n_offline,
        arguments.estimator,
        arguments.ema_alpha,
    )
    write_json(arguments.output, msgspec.to_builtins(summary))


if __name__ == "__main__":
    main()
