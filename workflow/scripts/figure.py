"""Draw one figure, as PDF and PNG."""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pdswitch.figures.save import save_figure
from pdswitch.files import read_json
from pdswitch.stages.entry import stage

Draw = Callable[..., Figure]


def _of_results(draw: Draw, _: str, results: Path) -> Figure:
    return draw(read_json(results))


def _profiling_results(draw: Draw, dataset: str, steps: Path, threshold: Path) -> Figure:
    return draw(dataset, pd.read_parquet(steps), read_json(threshold)["timing"])


def _input_length_distribution(draw: Draw, dataset: str, prompts: Path) -> Figure:
    tokens = pd.read_parquet(prompts, columns=["prompt_tokens"])["prompt_tokens"]
    return draw(dataset, tokens.to_numpy())


def _output_length_distribution(
    draw: Draw, dataset: str, requests: Path, termination: Path
) -> Figure:
    columns = ["output_tokens", "truncated"]
    return draw(dataset, pd.read_parquet(requests, columns=columns), read_json(termination))


def _of_one_file(draw: Draw, dataset: str, file: Path) -> Figure:
    return draw(dataset, read_json(file))


# Each is drawn by the module of its name, imported only when it is wanted: so drawing one takes a
# moment, and editing one redraws no other. With each, the input files that it wants, in order.
FIGURES: dict[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    "throughput_vs_k": (_of_results, ("{dataset}_results.json",)),
    "profiling_results": (_profiling_results, ("profile steps.parquet", "threshold.json")),
    "input_length_distribution": (_input_length_distribution, ("prompts.parquet",)),
    "output_length_distribution": (
        _output_length_distribution,
        ("termination requests.parquet", "termination.json"),
    ),
    "online_kstar_convergence": (_of_results, ("{dataset}_results.json",)),
    "timeline": (_of_one_file, ("pd_timeline_{dataset}.json",)),
    "hazard": (_of_one_file, ("termination.json",)),
}


@stage
def main() -> None:
    """Draw the figure."""
    wanted = [f"  {name}: {', '.join(inputs)}" for name, (_, inputs) in FIGURES.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["inputs, in this order:", *wanted]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=FIGURES, help="which figure")
    parser.add_argument("--dataset", required=True, help="its name, for the title")
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="see below")
    parser.add_argument("--output-stem", type=Path, required=True, help="path without ending")
    arguments = parser.parse_args()
    from_files, inputs = FIGURES[arguments.name]
    if len(arguments.inputs) != len(inputs):
        parser.error(
            f"{arguments.name} wants {len(inputs)} inputs ({', '.join(inputs)}), "
            f"got {len(arguments.inputs)}"
        )
    draw = import_module(f"pdswitch.figures.{arguments.name}").draw
    figure = from_files(draw, arguments.dataset, *arguments.inputs)
    written = save_figure(figure, arguments.output_stem)
    print("wrote", *written)


if __name__ == "__main__":
    main()
