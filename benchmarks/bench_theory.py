"""How fast the theory and the simulator are: ``python benchmarks/bench_theory.py [--json]``.

Each entry is the best of several runs after compilation, beside its target. It exits with 0
whatever the figures are: a loaded machine is no failure.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import numpy as np

from pdswitch.simulation import geometric_lengths, k_star_empirical, simulate
from pdswitch.theory import (
    StepTimes,
    bootstrap_thresholds,
    corrected_throughput,
    exact_throughput,
    memory_safe_slots,
    optimal_threshold,
    predicted_throughput,
    threshold_distribution,
    threshold_table_measured,
    throughput_band,
)

TIMES = StepTimes(12e-3, 2e-5, 6.5e-3, 2e-5)
P, PROMPT = 1 / 128, 128.0
COMPLETIONS = 1_000_000


class Entry(NamedTuple):
    name: str
    call: Callable[[], Any]
    target: float | None = None
    # How many things a call does: then the figure is a rate, per second.
    count: int | None = None


def entries() -> list[Entry]:
    rng = np.random.default_rng(0)
    lengths = geometric_lengths(P, COMPLETIONS, 1)
    tokens = rng.integers(128, 8000, 60)
    requests = np.repeat([1, 8, 32, 64, 128, 256], 10)
    prefill = TIMES.curves.prefill(tokens) + rng.normal(0, 3e-4, 60)
    decode = TIMES.curves.decode(requests) + rng.normal(0, 1e-4, 60)

    def bootstrap() -> Any:
        return bootstrap_thresholds(256, lengths[:500], tokens, prefill, requests, decode)

    def simulated(threshold: int, **options: Any) -> Callable[[], Any]:
        return lambda: simulate(lengths, 128, 256, threshold, TIMES, **options)

    return [
        Entry("k*, N = 4096", lambda: optimal_threshold(4096, P, 12e-3, 6.5e-3), 1e-3),
        Entry(
            "predicted curve, N = 4096", lambda: predicted_throughput(4096, P, TIMES, PROMPT), 1e-3
        ),
        Entry("corrected curve, N = 256", lambda: corrected_throughput(256, P, TIMES, PROMPT)),
        Entry("corrected curve, N = 4096", lambda: corrected_throughput(4096, P, TIMES, PROMPT)),
        Entry("exact chain, all k, N = 256", lambda: exact_throughput(256, P, TIMES, PROMPT), 2.0),
        Entry("exact chain, all k, N = 1024", lambda: exact_throughput(1024, P, TIMES, PROMPT)),
        Entry("k* of 10,000 bootstrap draws, N = 256", bootstrap, 1.0),
        Entry(
            "k* of 10,000 parametric draws, N = 256",
            lambda: threshold_distribution(256, P, 5e-4, 12e-3, 6.5e-3),
            1.0,
        ),
        Entry("band of the curve, N = 256", lambda: throughput_band(256, P, 5e-4, TIMES, PROMPT)),
        Entry(
            "measured table p -> k*, N = 256",
            lambda: threshold_table_measured(256, *TIMES.curves, PROMPT, 1e-3, 0.1),
        ),
        Entry("N* for 200,000 KV tokens", lambda: memory_safe_slots(2e5, P, 12e-3, 6.5e-3, 512.0)),
        *(
            Entry(f"simulator, k = {k}, N = 256", simulated(k), 5e6, COMPLETIONS)
            for k in (1, 38, 128, 256)
        ),
        Entry("simulator with step record, k = 38", simulated(38, record=True), None, COMPLETIONS),
        Entry(
            "simulator, mixed, budget 2048",
            simulated(1, policy="mixed", max_num_batched_tokens=2048),
            None,
            COMPLETIONS,
        ),
        Entry(
            "empirical k*, all k, N = 256",
            lambda: k_star_empirical(lengths[:5000], 128, 256, TIMES, completions=5_000),
        ),
    ]


def measure(call: Callable[[], Any]) -> float:
    """Return the shortest of up to 20 runs within about a second, after one to compile."""
    call()
    best, spent = float("inf"), 0.0
    for _ in range(20):
        begin = time.perf_counter()
        call()
        took = time.perf_counter() - begin
        best, spent = min(best, took), spent + took
        if spent > 1.0:
            break
    return best


def shown(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    found = []
    for entry in entries():
        seconds = measure(entry.call)
        rate = entry.count / seconds if entry.count else None
        value = seconds if rate is None else rate
        met = None
        if entry.target is not None:
            met = value <= entry.target if rate is None else value >= entry.target
        found.append(
            {
                "name": entry.name,
                "seconds": seconds,
                "rate": rate,
                "target": entry.target,
                "met": met,
            }
        )
        if not arguments.json:
            figure = shown(seconds) if rate is None else f"{rate / 1e6:.3g} M/s"
            target = ""
            if entry.target is not None:
                target = shown(entry.target) if rate is None else f"{entry.target / 1e6:.3g} M/s"
            verdict = {True: "met", False: "MISSED", None: ""}[met]
            print(f"{entry.name:<42}{figure:>12}   {target and 'target ' + target:<18}{verdict}")
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
