"""Write the report: one self-contained HTML page over all datasets."""

import argparse
from pathlib import Path

from pdswitch.files import atomic_path, read_json
from pdswitch.report import FIGURES, render


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="results JSON files")
    parser.add_argument("--config", required=True, help="the merged config, as text")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    cells = [read_json(path) for path in arguments.results]
    figures = [
        {name: path.parent / f"{cell['dataset']}_{name}.png" for name, _ in FIGURES}
        for path, cell in zip(arguments.results, cells, strict=True)
    ]
    template = arguments.template.read_text(encoding="utf-8")
    with atomic_path(arguments.output) as aside:
        aside.write_text(render(template, cells, arguments.config, figures), encoding="utf-8")


if __name__ == "__main__":
    main()
