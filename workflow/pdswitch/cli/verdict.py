"""Print the verdict of every dataset, and where the figures and the report are."""

import argparse
from pathlib import Path

EXTRA = "workflow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the folder of the results."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path("results"),
        help="the workflow's output folder, with summary.csv",
    )


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from pdswitch.report.verdict import print_verdicts

    print_verdicts(options.results)
    return 0
