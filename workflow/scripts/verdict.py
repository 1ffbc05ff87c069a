"""Print the verdict of every dataset, and where the figures and the report are."""

import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from pdswitch.files import read_json


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"))
    arguments = parser.parse_args()
    summary = arguments.results / "summary.csv"
    if not summary.is_file():
        sys.exit(f"error: {summary} does not exist; run the workflow first: make run")
    console = Console()
    table = Table("dataset", "N", "k* offline", "k* online", "k̂", "regret", "95 %", "k̂ / mixed")
    folders = []
    for row in pd.read_csv(summary).itertuples(index=False):
        folder = arguments.results / row.model / row.dataset / f"N={row.n_slots}"
        result = read_json(folder / f"{row.dataset}_results.json")
        verdict = result["verdict"]
        interval = "–"
        if verdict["regret_low"] is not None:
            interval = f"{100 * verdict['regret_low']:.1f} – {100 * verdict['regret_high']:.1f} %"
        table.add_row(
            row.dataset,
            str(row.n_slots),
            str(result["k_star"]),
            str(result["k_star_online"]),
            str(result["k_hat"]),
            f"{100 * verdict['regret']:.1f} %",
            interval,
            f"{verdict['mixed_ratio']:.3f}",
        )
        folders.append((folder, verdict["sentence"]))
    console.print(table)
    for folder, sentence in folders:
        console.print(sentence, highlight=False)
        console.print(f"figures: {folder}/", highlight=False)
    console.print(f"report:  {arguments.results / 'report.html'}", highlight=False)


if __name__ == "__main__":
    main()
