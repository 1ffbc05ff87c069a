"""What a step's `schedule()` costs under `fixed`, beside vLLM's own scheduler.

No model runs: both schedulers get the same made-up outputs for the same stream of requests,
one step behind as under asynchronous scheduling. Rounds of the two alternate in one process. Prints
the medians over the rounds of the mean time per step, in µs, and what the plug-in adds:

    PYTHONPATH=workflow python benchmarks/bench_scheduler.py

A policy changes what the steps do: `mixed` under the plug-in makes the same steps as vLLM's own
class and shows the cost of the plug-in alone; `fixed` makes other, and more, steps. The time in
`update_from_output()`, under update, is given as well, because the record is written there.
"""

import argparse
import gc
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from pdswitch.plugin.scheduler import SwitchingScheduler
from scheduler_harness import Loop, make_request, make_scheduler

MEAN_TOKENS = 64
OWN = "vLLM's own"
TARGET_SHARE, TARGET_US = 0.05, 20.0


class Timed:
    """Stands before a scheduler and adds up the time of the two calls of a step."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.steps = 0
        self.schedule_ns = self.update_ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def schedule(self) -> Any:
        start = time.perf_counter_ns()
        output = self._scheduler.schedule()
        self.schedule_ns += time.perf_counter_ns() - start
        self.steps += 1
        return output

    def update_from_output(self, *outputs: Any) -> Any:
        start = time.perf_counter_ns()
        result = self._scheduler.update_from_output(*outputs)
        self.update_ns += time.perf_counter_ns() - start
        return result


def serve(scheduler: Any, lengths: list[int], order: dict[str, Any] | None) -> tuple[float, float]:
    """Serve all requests; mean time of `schedule()` and `update_from_output()`, µs a step."""
    for i, tokens in enumerate(lengths):
        scheduler.add_request(make_request(f"r{i}", 32, tokens, order))
    timed = Timed(scheduler)
    gc.collect()
    gc.disable()
    Loop(timed, behind=1).serve(limit=1_000_000)
    gc.enable()
    return timed.schedule_ns / timed.steps / 1e3, timed.update_ns / timed.steps / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[32, 256, 1024])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| N | scheduler | schedule(), µs | more, µs | more, % | update, µs | target |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for n_slots in arguments.slots:
            table(Path(name), n_slots, arguments.rounds)


def table(folder: Path, n_slots: int, rounds: int) -> None:
    count = 3 * n_slots
    lengths = np.random.default_rng(0).geometric(1 / MEAN_TOKENS, count).clip(1, 512).tolist()

    def ordered(policy: dict[str, Any], recorded: bool) -> dict[str, Any]:
        path = str(folder / "record") if recorded else None
        return {"policy": policy, "requests": count, "record_path": path}

    fixed = {"kind": "fixed", "threshold": max(1, n_slots // 8)}
    variants = {
        OWN: (AsyncScheduler, None),
        "mixed": (SwitchingScheduler, ordered({"kind": "mixed"}, False)),
        "fixed": (SwitchingScheduler, ordered(fixed, False)),
        "fixed, recorded": (SwitchingScheduler, ordered(fixed, True)),
    }
    blocks = n_slots * 40
    schedulers = {
        name: make_scheduler(kind, folder, n_slots, blocks=blocks)
        for name, (kind, _) in variants.items()
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in list(variants) if number % 2 else list(variants)[::-1]:
            times = serve(schedulers[name], lengths, variants[name][1])
            if number:  # the first round warms up
                taken[name].append(times)
    own = statistics.median(schedule for schedule, _ in taken[OWN])
    for name, times in taken.items():
        schedule = statistics.median(one for one, _ in times)
        update = statistics.median(one for _, one in times)
        more = schedule - own
        met = more <= TARGET_US or more <= TARGET_SHARE * own
        print(
            f"| {n_slots} | {name} | {schedule:.1f} | {more:+.1f} | {100 * more / own:+.1f} "
            f"| {update:.1f} | {'' if name == OWN else 'met' if met else 'missed'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
