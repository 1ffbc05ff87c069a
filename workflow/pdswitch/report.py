"""The report: one self-contained page over all datasets."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

FIGURES = (
    (
        "throughput_vs_k",
        "Throughput over the threshold k. Left: requests/s over the whole run, ramp and drain "
        "included; right: over the steady window, with the prediction from the straight fits "
        "(band: 95 % under the errors of p and of the fits) and from the measured curves.",
    ),
    (
        "profiling_results",
        "Step times of the profile and their fits; below, the straight fit's residuals.",
    ),
    (
        "output_length_distribution",
        "Natural output lengths of the termination run, and the geometric law of the estimated p.",
    ),
    ("hazard", "Chance to end with the next token, by age; flat for a geometric law."),
    ("input_length_distribution", "Prompt lengths, chat template included."),
    ("online_kstar_convergence", "k* and p during the run in which both are estimated online."),
    ("timeline", "Phases of the first run at k*."),
)


def render(
    template: str, cells: list[dict[str, Any]], config: str, figures: list[dict[str, Path]]
) -> str:
    """Return the page.

    Args:
        template: Jinja source.
        cells: contents of the results JSON files.
        config: the merged config, as text.
        figures: for each cell, PNG files by figure name.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "percent": _percent,
        "rate": lambda value: _number(value, 3),
        "ms": lambda value: _number(None if value is None else 1e3 * value, 2),
        "us": lambda value: _number(None if value is None else 1e6 * value, 1),
        "number": _number,
    }
    drawn = [
        [(name, caption, _data_uri(files[name])) for name, caption in FIGURES] for files in figures
    ]
    return environment.from_string(template).render(
        cells=list(zip(cells, drawn, strict=True)), config=config
    )


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
