"""The verdict of every dataset, printed on a terminal."""

import csv
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pdswitch.errors import InputError
from pdswitch.files import read_json
from pdswitch.report.wording import headline, verdict_rows


def print_verdicts(folder: Path) -> None:
    """Print the verdict of every results file, and where the figures and the report are.

    Args:
        folder: the workflow's output folder, with summary.csv.

    Raises:
        InputError: if there is no summary, or a file that it names is gone.
    """
    files = result_files(folder)
    console = Console(highlight=False)
    for file in files:
        print_verdict(console, file)
    console.print(Text.assemble(("report  ", "bold"), str(folder / "report.html")), soft_wrap=True)


def result_files(folder: Path) -> list[Path]:
    """Return the results files that the summary names: older ones may lie beside them.

    Raises:
        InputError: if there is no summary, or a file that it names is gone.
    """
    summary = folder / "summary.csv"
    if not summary.is_file():
        raise InputError(f"{summary} does not exist; run the workflow first: make run")
    with summary.open(newline="", encoding="utf-8") as table:
        files = [
            folder
            / row["model"]
            / row["dataset"]
            / f"N={row['n_slots']}"
            / f"{row['dataset']}_results.json"
            for row in csv.DictReader(table)
        ]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is gone; make it again: make run")
    return files


def print_verdict(console: Console, file: Path) -> None:
    """Print one dataset's verdict, from its results file."""
    results = read_json(file)
    name = f"{results['dataset']}, {results['model']}, N = {results['n_slots']}"
    console.print(Text(name, style="bold underline"))
    console.print(Text(headline(results)))
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column()
    # Text, not str: a name in square brackets is no markup.
    for label, value in verdict_rows(results):
        rows.add_row(Text(label), Text(value))
    rows.add_row(Text("figures"), Text(f"{file.parent}/{results['dataset']}_*.pdf"))
    console.print(Padding(rows, (0, 0, 1, 2)))
