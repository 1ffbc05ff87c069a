"""Write the report: one self-contained HTML page over all models, datasets and N."""

import argparse
from pathlib import Path

from pdswitch.figures.catalogue import figures
from pdswitch.files import atomic_path
from pdswitch.report.page import load_cell, render
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--template", type=Path, required=True, help="report.html.j2")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        required=True,
        help="results JSON files, each with its figures (PNG) beside it",
    )
    parser.add_argument("--config", required=True, help="the merged config, as text")
    parser.add_argument("--output", type=Path, required=True, help="report.html")
    arguments = parser.parse_args()
    template = arguments.template.read_text(encoding="utf-8")
    captions = {name: figure.caption for name, figure in figures().items()}
    cells = [load_cell(path, captions) for path in arguments.results]
    page = render(template, cells, arguments.config)
    with atomic_path(arguments.output) as aside:
        aside.write_text(page, encoding="utf-8")
    print(f"wrote {arguments.output}: {len(cells)} results, {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
