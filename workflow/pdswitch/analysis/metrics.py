"""What one run achieved: throughput, latencies, memory. From its steps and requests."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

QUANTILES = (0.5, 0.95, 0.99)


class Window(NamedTuple):
    """Part of a run between two refills, s from its start."""

    start_s: float
    end_s: float


def steady_window(steps: pd.DataFrame, n_slots: int) -> Window | None:
    """Return the part of a run that neither ramps up nor drains, or None if there is none.

    It begins when the first refill is complete, and ends with the last refill that left at least
    N requests waiting; from refill to refill, so that it holds whole cycles.
    """
    prefills = steps["prefill_tokens"] > 0
    if prefills.all():
        return None
    # The first refill may take several steps.
    first_decode = int((~prefills).to_numpy().argmax())
    start = float(steps["done_s"].iloc[max(first_decode - 1, 0)])
    # A refill that goes on is not complete, and its requests are only partly admitted.
    goes_on = steps["refill_cause"].shift(-1) == "continued"
    full = steps[prefills & ~goes_on & (steps["waiting"] >= n_slots)]
    if full.empty or full["done_s"].iloc[-1] <= start:
        return None
    return Window(start, float(full["done_s"].iloc[-1]))


def run_metrics(
    steps: pd.DataFrame,
    requests: pd.DataFrame,
    n_slots: int,
    excluded: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the metrics of one run.

    Args:
        steps: step records.
        requests: request records.
        n_slots: N.
        excluded: requests left out of throughput and latencies (repetition loops).

    Returns:
        Throughput in requests/s over the makespan (`throughput`) and over the steady window
        (`steady_throughput`, None without one); tokens/s; `ttft`, `tpot`, `itl`, `e2e` as
        quantiles in s; `kv_high_water` in blocks; see docs/results.md.
    """
    makespan = float(steps["done_s"].iloc[-1])
    counted = requests[~requests["request_id"].isin(excluded)]
    window = steady_window(steps, n_slots)
    steady = None
    if window is not None:
        inside = counted["finish_s"].between(window.start_s, window.end_s, inclusive="right")
        steady = float(inside.sum() / (window.end_s - window.start_s))
    output, prompt = int(counted["output_tokens"].sum()), int(counted["prompt_tokens"].sum())
    several = counted[counted["output_tokens"] > 1]
    refills = refill_sizes(steps)
    return {
        "throughput": len(counted) / makespan,
        "steady_throughput": steady,
        "steady_window_s": list(window) if window else None,
        "makespan_s": makespan,
        "output_tokens_per_s": output / makespan,
        "total_tokens_per_s": (output + prompt) / makespan,
        "ttft": _quantiles(counted["first_token_s"] - counted["arrival_s"]),
        "tpot": _quantiles(
            (several["finish_s"] - several["first_token_s"]) / (several["output_tokens"] - 1)
        ),
        "itl": _quantiles(inter_token_latencies(steps, counted)),
        "e2e": _quantiles(counted["finish_s"] - counted["arrival_s"]),
        "kv_high_water": int(steps["kv_blocks"].max()),
        "preemptions": int(requests["preemptions"].sum()),
        "steps": len(steps),
        "refills": len(refills),
        "forced_refills": _cycles_with(
            steps, steps["refill_cause"].to_numpy(dtype=object) == "max_hold"
        ),
        "cut_short_refills": int(cut_short_refills(steps, n_slots).sum()),
        "out_of_memory_cycles": out_of_memory_cycles(steps, n_slots),
        # The first refill fills all slots whatever k is.
        "mean_refill": float(np.mean(refills[1:])) if len(refills) > 1 else None,
        "excluded": len(requests) - len(counted),
    }


def refill_sizes(steps: pd.DataFrame) -> list[int]:
    """Return the requests admitted in each run of consecutive steps with prefill."""
    number, admitted = _cycle_numbers(steps), steps["admitted"].to_numpy()
    return [int(admitted[number == cycle].sum()) for cycle in range(1, number[-1] + 1)]


def cut_short_refills(steps: pd.DataFrame, n_slots: int) -> NDArray[np.bool_]:
    """Say of every step whether it begins a refill that KV memory cut short.

    A refill takes in as many requests as were waiting when it began, or as there were free slots
    for. One that takes fewer, over all its steps, found no KV memory for more; so did one with a
    step without prefill. Where the token budget spreads a refill over several steps, the later ones
    are `continued` and belong to it.

    Args:
        steps: step records. Under the policy mixed no step belongs to a refill.
        n_slots: N.

    Returns:
        A boolean for every step.
    """
    cause = steps["refill_cause"].to_numpy(dtype=object)
    in_refill, begins = cause != "", (cause != "") & (cause != "continued")
    number = np.cumsum(begins)

    def over_the_refill(values: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(number, weights=np.where(in_refill, values, 0))[number].astype(np.int64)

    admitted = steps["admitted"].to_numpy()
    # Running and waiting are counted after the step was scheduled.
    entered = admitted - steps["preempted"].to_numpy()
    free = n_slots - steps["running"].to_numpy() + entered
    wanted = np.minimum(free, steps["waiting"].to_numpy() + entered)
    found_none = over_the_refill(steps["prefill_tokens"].to_numpy() == 0) > 0
    return begins & ((over_the_refill(admitted) < wanted) | found_none)


def out_of_memory_cycles(steps: pd.DataFrame, n_slots: int) -> int:
    """Return in how many cycles KV memory ran out: it preempted, or cut the refill short.

    A cycle goes from one refill to the next.
    """
    preempted = (steps["preempted"] > 0).to_numpy()
    return _cycles_with(steps, preempted | cut_short_refills(steps, n_slots))


def _cycles_with(steps: pd.DataFrame, chosen: NDArray[np.bool_]) -> int:
    """Return how many cycles have a step of those chosen."""
    return len(set(_cycle_numbers(steps)[chosen]))


def _cycle_numbers(steps: pd.DataFrame) -> NDArray[np.int64]:
    """Return for every step how many runs of prefill steps have begun, its own included."""
    prefills = (steps["prefill_tokens"] > 0).to_numpy()
    return np.cumsum(prefills & ~np.concatenate([[False], prefills[:-1]]))


def inter_token_latencies(steps: pd.DataFrame, requests: pd.DataFrame) -> pd.Series:
    """Return the gaps between the tokens of every request, in s.

    A request in a slot gets a token with every step that decodes, from its first token on; steps
    in which it is frozen lie inside a gap.
    """
    done = steps.loc[steps["decode_requests"] > 0, "done_s"].to_numpy()
    first, last = requests["first_token_s"].to_numpy(), requests["finish_s"].to_numpy()
    begin = np.searchsorted(done, first, side="right")
    end = np.searchsorted(done, last, side="right")
    gaps = [
        np.diff(done[b:e], prepend=f) for f, b, e in zip(first, begin, end, strict=True) if e > b
    ]
    return pd.Series(np.concatenate(gaps) if gaps else [], dtype="float64")


def _quantiles(values: pd.Series) -> dict[str, float | None]:
    return {
        f"p{round(100 * q)}": float(values.quantile(q)) if len(values) else None for q in QUANTILES
    }
