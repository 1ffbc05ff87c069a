"""Draw one figure, as PDF and PNG."""

import argparse
from pathlib import Path

from pdswitch.figures.catalogue import RESULT_FILES, figures
from pdswitch.figures.save import save_figure
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Draw the figure."""
    known = figures()
    wanted = [f"  {name}: {', '.join(figure.inputs)}" for name, figure in known.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["inputs, in this order:", *wanted]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=known, help="which figure")
    parser.add_argument("--dataset", required=True, help="its name, for the title")
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="see below")
    parser.add_argument("--output-stem", type=Path, required=True, help="path without ending")
    arguments = parser.parse_args()
    figure = known[arguments.name]
    if len(arguments.inputs) != len(figure.inputs):
        files = [Path(RESULT_FILES[name]).name for name in figure.inputs]
        parser.error(
            f"{figure.name} wants {len(files)} inputs ({', '.join(files)}), "
            f"got {len(arguments.inputs)}"
        )
    drawn = figure.draw(arguments.dataset, arguments.inputs)
    print("wrote", *save_figure(drawn, arguments.output_stem))


if __name__ == "__main__":
    main()
