"""Draw one figure, as PDF and PNG."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pdswitch.figures import (
    hazard,
    length_distribution,
    online_convergence,
    profiling_results,
    throughput_vs_k,
    timeline,
)
from pdswitch.figures.style import save
from pdswitch.files import read_json


def _throughput_vs_k(a: argparse.Namespace) -> Figure:
    return throughput_vs_k.draw(read_json(a.inputs[0]))


def _profiling_results(a: argparse.Namespace) -> Figure:
    return profiling_results.draw(pd.read_parquet(a.inputs[0]), read_json(a.inputs[1])["timing"])


def _input_length_distribution(a: argparse.Namespace) -> Figure:
    prompts = pd.read_parquet(a.inputs[0], columns=["prompt_tokens"])
    return length_distribution.draw_input(a.dataset, prompts["prompt_tokens"])


def _output_length_distribution(a: argparse.Namespace) -> Figure:
    return length_distribution.draw_output(
        a.dataset, pd.read_parquet(a.inputs[0]), read_json(a.inputs[1])
    )


def _online_kstar_convergence(a: argparse.Namespace) -> Figure:
    return online_convergence.draw(a.dataset, pd.read_parquet(a.inputs[0]), read_json(a.inputs[1]))


def _timeline(a: argparse.Namespace) -> Figure:
    return timeline.draw(f"{a.dataset}: the run at k*", read_json(a.inputs[0]))


def _hazard(a: argparse.Namespace) -> Figure:
    return hazard.draw(a.dataset, read_json(a.inputs[0]))


# Each with the inputs it wants, in order.
FIGURES: dict[str, tuple[Callable[[argparse.Namespace], Figure], str]] = {
    "throughput_vs_k": (_throughput_vs_k, "results JSON"),
    "profiling_results": (_profiling_results, "profile steps.parquet, threshold.json"),
    "input_length_distribution": (_input_length_distribution, "prompts.parquet"),
    "output_length_distribution": (
        _output_length_distribution,
        "termination requests.parquet, termination.json",
    ),
    "online_kstar_convergence": (
        _online_kstar_convergence,
        "kstar_history.parquet, threshold.json",
    ),
    "timeline": (_timeline, "timeline JSON"),
    "hazard": (_hazard, "termination.json"),
}


def main() -> None:
    """Draw the figure."""
    wanted = "; ".join(f"{name}: {inputs}" for name, (_, inputs) in FIGURES.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"Inputs — {wanted}.")
    parser.add_argument("name", choices=FIGURES)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True)
    parser.add_argument("--output-stem", type=Path, required=True, help="path without ending")
    arguments = parser.parse_args()
    drawing, _ = FIGURES[arguments.name]
    save(drawing(arguments), arguments.output_stem)


if __name__ == "__main__":
    main()
