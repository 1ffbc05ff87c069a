"""Checks of a finished run; a run that fails one enters no average."""

from typing import Any

import pandas as pd

from pdswitch.analysis.metrics import cut_short_refills, refill_sizes
from pdswitch.engine.compliance import departures

CLOCK_TOLERANCE = 0.05


def rejections(
    steps: pd.DataFrame,
    requests: pd.DataFrame,
    facts: dict[str, Any],
    replayed: bool,
    memory_bound: bool = False,
) -> list[str]:
    """Return the reasons not to count a run, one sentence each; empty for a valid one.

    Args:
        steps: step records.
        requests: request records.
        facts: content of `run.json`.
        replayed: whether every request had to generate exactly what it was asked for.
        memory_bound: whether N was chosen so that KV memory may run out now and then; that it
            does is then part of what is measured.
    """
    reasons = []
    if replayed and facts["output_tokens"] != facts["tokens_asked"]:
        reasons.append(
            f"{facts['output_tokens']} tokens were generated, {facts['tokens_asked']} asked for"
        )
    other = int((requests["output_tokens"] != requests["max_tokens"]).sum())
    if replayed and other:
        reasons.append(f"{other} requests generated another number of tokens than asked for")
    if facts.get("requests_asked", len(requests)) != len(requests):
        reasons.append(f"{len(requests)} requests ended of {facts['requests_asked']}")
    aborted = int((requests["finish_reason"] == "abort").sum())
    if aborted:
        reasons.append(f"{aborted} requests were aborted")
    mixed = int(((steps["prefill_tokens"] > 0) & (steps["decode_requests"] > 0)).sum())
    if mixed and facts["policy"] != "mixed":
        reasons.append(f"{mixed} steps mixed prefill and decode")
    preempted = int(steps["preempted"].sum())
    if preempted and not memory_bound:
        reasons.append(f"{preempted} requests were preempted: the KV memory is too small for N")
    cut_short = int(cut_short_refills(steps, facts["n_slots"]).sum())
    if cut_short and not memory_bound:
        refills = max(len(refill_sizes(steps)), cut_short)
        reasons.append(
            f"{cut_short} of {refills} refills were cut short: the KV memory is too small for N"
        )
    cached = int(steps["cached_tokens"].sum())
    if cached:
        reasons.append(f"{cached} prompt tokens came from the prefix cache")
    wall, summed = float(steps["done_s"].iloc[-1]), float(steps["duration_s"].sum())
    if abs(summed - wall) > CLOCK_TOLERANCE * wall:
        reasons.append(f"step times add up to {summed:.3f} s of {wall:.3f} s on the clock")
    return reasons + departures(facts["engine"])
