"""Fit the step times of a profile."""

import argparse
from pathlib import Path

import pandas as pd

from pdswitch.files import write_json
from pdswitch.profiling.fit import fit_steps
from pdswitch.profiling.modes import most_slow_steps
from pdswitch.report.wording import two_times
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=Path, required=True, help="steps.parquet of the profile")
    parser.add_argument("--n-slots", type=int, required=True, help="N")
    parser.add_argument("--output", type=Path, required=True, help="fit.json")
    arguments = parser.parse_args()
    fit = fit_steps(pd.read_parquet(arguments.steps), arguments.n_slots)
    write_json(arguments.output, fit)
    modes = fit["decode"]["modes"]
    if modes:
        print(f"warning: {two_times(max(modes, key=most_slow_steps))}; see docs/engine.md")


if __name__ == "__main__":
    main()
