"""Draw and tabulate how the online estimators follow a shift of the lengths in docs/engine.md.

N slots that are never empty serve requests in their order; from one of them on, outputs have a
mean of 512 tokens in place of 64. Each estimator sees the requests through the `Controller` of an
adaptive policy, as inside the scheduler, where a test with vLLM shows the same.
"""

import argparse
import heapq
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pdswitch.figures.style import BLACK, BLUE, ORANGE, PURPLE, house_style, legend_below
from pdswitch.plugin.online_estimators import EstimatorName
from pdswitch.plugin.policy import Controller, Policy, ThresholdTable
from pdswitch.stages.entry import stage

ROOT = Path(__file__).resolve().parents[1]
BEFORE, AFTER = 64, 512
SLOTS = (8, 16, 32, 64, 256)
INTERVAL = 32
RUNS = 200
SHOWN = 32
WIDTH_IN, HEIGHT_IN, DPI = 7.0, 3.2, 130
NAMES: dict[EstimatorName, tuple[str, str]] = {
    "ema_length": ("EMA of L, a = 0.3", BLUE),
    "ema_inverse": ("EMA of 1/L, a = 0.3", ORANGE),
    "window": ("window of 64", PURPLE),
    "completions_per_token": ("completions per token, 64", BLACK),
}
# The adaptive policy needs a table; p is what is looked at.
TABLE = ThresholdTable([1 / 256], [2, 1])


class Completion(NamedTuple):
    """A request that ended, at a time counted in decode steps."""

    output_tokens: int
    shifted: bool
    tokens_in_progress: int


def serve(lengths: NDArray[np.int64], shifted_from: int, n_slots: int) -> Iterator[Completion]:
    """Yield the completions of slots that take the next request as soon as one ends."""
    # (end, request, start), in steps; a request makes one token a step.
    busy = [(int(length), i, 0) for i, length in enumerate(lengths[:n_slots])]
    heapq.heapify(busy)
    starts = 0
    for following in range(n_slots, len(lengths)):
        end, request, start = busy[0]
        starts -= start
        # The other slots have made one token in every step since their start.
        in_progress = (n_slots - 1) * end - starts
        yield Completion(int(lengths[request]), request >= shifted_from, in_progress)
        heapq.heapreplace(busy, (end + int(lengths[following]), following, end))
        starts += end


class Followed(NamedTuple):
    """What an estimator said over one run: at each update, completions of the new law and p."""

    own: NDArray[np.int64]
    probability: NDArray[np.float64]

    def after(self, completions: int) -> float:
        """The first estimate with so many completions of the new law; for 0, the last before it."""
        first = np.searchsorted(self.own, completions) if completions else (self.own == 0).sum() - 1
        return float(self.probability[first])


def follow(name: EstimatorName, n_slots: int, seed: int) -> Followed:
    """Run one estimator through the shift."""
    random = np.random.default_rng([seed, n_slots])
    # Long enough before to have forgotten the start, and after for twelve updates of the new law.
    before = 6 * INTERVAL + 4 * n_slots
    after = 12 * INTERVAL + 4 * n_slots
    lengths = np.concatenate(
        [random.geometric(1 / BEFORE, before), random.geometric(1 / AFTER, after)]
    )
    policy = Policy(
        kind="adaptive",
        table=TABLE,
        update_interval=INTERVAL,
        estimator=name,
        initial_probability=1 / BEFORE,
    )
    controller = Controller(policy, n_slots)
    own, at_updates = 0, []
    for done in serve(lengths, before, n_slots):
        own += done.shifted
        updates = len(controller.history)
        controller.completed(done.output_tokens, 0.0, lambda tokens=done.tokens_in_progress: tokens)
        if len(controller.history) > updates:
            at_updates.append(own)
    return Followed(
        np.array(at_updates),
        np.array([update.termination_probability for update in controller.history]),
    )


@cache
def two_intervals_after(name: EstimatorName, n_slots: int) -> NDArray[np.float64]:
    """Return the estimate over the new p in every run, two update intervals into the new law."""
    found = [follow(name, n_slots, seed).after(2 * INTERVAL) for seed in range(RUNS)]
    return np.array(found) * AFTER


def table() -> list[str]:
    """Return the lines of the Markdown table."""
    head = ["estimator", *(f"N = {n}" for n in SLOTS)]
    rows = [head, ["---"] * len(head)]
    for name in get_args(EstimatorName):
        cells = []
        for n_slots in SLOTS:
            low, middle, high = np.quantile(two_intervals_after(name, n_slots), (0.05, 0.5, 0.95))
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        rows.append([f"`{name}`", *cells])
    return ["| " + " | ".join(row) + " |" for row in rows]


def draw() -> Figure:
    """Draw the medians over the runs of p, against completions of the new law."""
    with house_style():
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        for axes, n_slots in zip(figure.subplots(1, 2, sharey=True), (SHOWN, 256), strict=True):
            grid = np.arange(0, 8 * INTERVAL + 1, INTERVAL)
            for name, (label, colour) in NAMES.items():
                runs = [follow(name, n_slots, seed) for seed in range(RUNS)]
                values = np.array([[AFTER * run.after(own) for own in grid] for run in runs])
                low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
                axes.plot(grid, middle, color=colour, marker="o", markersize=3, label=label)
                axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.axhline(1.0, color=BLACK, lw=0.8, ls=":")
            axes.axvline(2 * INTERVAL, color=BLACK, lw=0.8, ls="--")
            axes.set(
                yscale="log",
                xlabel="completions of the new law",
                title=f"mean length {BEFORE} → {AFTER}, N = {n_slots}",
            )
            if n_slots == SHOWN:
                axes.set_ylabel("estimate / new p")
                legend_below(figure, axes, columns=4)
    return figure


@stage
def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--document", type=Path, default=ROOT / "docs/engine.md")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/figures/online_shift.png")
    parser.add_argument("--check", action="store_true", help="write nothing, compare the table")
    arguments = parser.parse_args()
    before = arguments.document.read_text(encoding="utf-8")
    start, end = "<!-- table: shift -->\n", "<!-- end -->"
    head, rest = before.split(start, 1)
    document = head + start + "\n".join(table()) + "\n" + end + rest.split(end, 1)[1]
    if arguments.check:
        if document != before:
            print(
                f"{arguments.document} is out of date; run {Path(__file__).name}", file=sys.stderr
            )
        return int(document != before)
    arguments.document.write_text(document, encoding="utf-8")
    draw().savefig(arguments.figure, dpi=DPI, metadata={"Software": None})
    print(arguments.figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
