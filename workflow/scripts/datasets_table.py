"""Print the datasets side by side, with counts and lengths, and draw the length histograms."""

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pdswitch.figures.datasets_overview import draw, overview
from pdswitch.figures.save import save_figure
from pdswitch.files import atomic_path, read_json
from pdswitch.stages.entry import stage

COLUMNS = {
    "dataset": "dataset",
    "requests": "requests",
    "skipped": "skipped",
    "input_mean": "input\nmean",
    "input_p95": "\np95",
    "input_max": "\nmax",
    "output_mean": "answer\nmean",
    "output_p95": "\np95",
    "output_max": "\nmax",
    "output_cv": "\nCV",
    "geometric_ks_distance": "\nKS",
}
WIDEST = 1000  # characters


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "manifests", type=Path, nargs="+", help="prompts.json files, prompts.parquet beside each"
    )
    parser.add_argument("--labels", nargs="+", help="their names in the table and the figure")
    parser.add_argument("--table", type=Path, required=True, help="output: the table as CSV")
    parser.add_argument(
        "--figure", type=Path, required=True, help="output: the histograms, path without ending"
    )
    arguments = parser.parse_args()
    manifests = [read_json(path) for path in arguments.manifests]
    labels = arguments.labels or [manifest["dataset"] for manifest in manifests]
    if len(set(labels)) != len(manifests):
        parser.error(f"{len(manifests)} manifests want as many different labels, not {labels}")
    by_name = dict(zip(labels, manifests, strict=True))
    columns = ["prompt_tokens", "reference_output_tokens"]
    lengths = {
        label: pd.read_parquet(path.with_suffix(".parquet"), columns=columns)
        for label, path in zip(labels, arguments.manifests, strict=True)
    }
    table = overview(by_name)
    with atomic_path(arguments.table) as aside:
        table.to_csv(aside, index=False)
    save_figure(draw(lengths), arguments.figure)
    show(table, by_name)


def show(table: pd.DataFrame, manifests: dict[str, Any]) -> None:
    """Print the table, and below it what was used again, and what was skipped and why."""
    shown = Table(
        title="Datasets: lengths in tokens, Kolmogorov-Smirnov distance (KS) to geometric",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for key, heading in COLUMNS.items():
        side = "left" if key == "dataset" else "right"
        shown.add_column(heading, justify=side, no_wrap=True, min_width=6)
    for row in table.to_dict("records"):
        if row["kind"] != row["dataset"]:
            row["dataset"] = f"{row['dataset']} ({row['kind']})"
        shown.add_row(*(_cell(key, row[key]) for key in COLUMNS))
    # A narrow terminal breaks the lines, which is better than numbers cut to "1…".
    needed = Console(width=WIDEST).measure(shown).maximum
    console = Console(width=max(Console().width, needed))
    console.print(shown)
    for name, manifest in manifests.items():
        if manifest["reused"]:
            once = manifest["rows"] - manifest["reused"]
            again = f"{name}: {manifest['reused']} requests are others used again; {once} differ"
            console.print(again, highlight=False, markup=False)
        for reason, count in manifest["skipped"].items():
            console.print(f"{name}: {count} skipped: {reason}", highlight=False, markup=False)


def _cell(key: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if key in {"output_cv", "geometric_ks_distance"}:
        return f"{value:.2f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else escape(str(value))


if __name__ == "__main__":
    main()
