"""Results in words: numbers with units, and the sentences that report and terminal share."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pdswitch.analysis.devices import blocks_on_several_devices

NONE = "–"
ONE_BLOCK = "one block gives no interval, raise repeats"


def significant(value: float | None, digits: int = 4) -> str:
    """Write a number with so many significant digits; in powers of ten only below 0.0001."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0)}f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Write a fraction in percent."""
    if fraction is None or not math.isfinite(fraction):
        return NONE
    return f"{100 * fraction:.{digits}f} %"


def percent_interval(low: float | None, high: float | None) -> str:
    """Write an interval of fractions in percent."""
    if low is None or high is None:
        return NONE
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def seconds(value: float | None) -> str:
    """Write a time in the unit that suits it."""
    if value is None or not math.isfinite(value):
        return NONE
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= unit:
            return f"{significant(value / unit, 3)} {name}"
    return f"{significant(value / 1e-9, 3)} ns"


def thresholds(chosen: Sequence[int]) -> str:
    """Name each of these thresholds; three successive ones or more as ``3 to 7``."""
    runs: list[list[int]] = []
    for k in sorted(chosen):
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    parts = [
        name
        for run in runs
        for name in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))
    ]
    return in_a_row(parts)


def in_a_row(parts: Sequence[str]) -> str:
    """Join things: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def threshold(k: int | None) -> str:
    """Write a threshold that may be unknown."""
    return NONE if k is None else str(k)


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def measured_grid(results: dict[str, Any]) -> list[int]:
    """Return the thresholds of the sweep, ascending."""
    return sorted(int(k) for k in results["throughput_by_k"])


def headline(results: dict[str, Any]) -> str:
    """Say in one sentence how k* did: offline, online, k̂, regret, what is no worse, mixed.

    Args:
        results: content of `{dataset}_results.json`.
    """
    verdict = results["verdict"]
    k_star, k_hat, online = results["k_star"], results["k_hat"], results["k_star_online"]
    computed = f"k* = {k_star} offline" + (f" ({online} online)" if online is not None else "")
    if k_hat is None or verdict["regret"] is None:
        rejected = count(len(results["rejected"]), "run")
        return f"{computed} could not be judged; rejected: {rejected}{doubt_clause(verdict)}."
    parts = [f"{computed} {_cost(k_star, k_hat, verdict)}"]
    chosen = verdict["indifference_set"]
    if chosen:
        others = sum(k != k_hat for k in chosen)
        parts.append(
            f"k = {thresholds(chosen)} cannot be told from the best"
            if others
            else "no other measured k can compete with the best"
        )
    if verdict["mixed_ratio"] is not None:
        parts.append(f"k̂ serves {verdict['mixed_ratio']:.3f} × what vLLM's own mixed policy does")
    return f"{'; '.join(parts)}{doubt_clause(verdict)}."


def _cost(k_star: int, k_hat: int, verdict: dict[str, Any]) -> str:
    low, high = verdict["regret_low"], verdict["regret_high"]
    known = low is not None
    if k_star == k_hat:
        sure = f"regret at most {percent(high)} at 95 %" if known else ONE_BLOCK
        return f"is the best measured k itself ({sure})"
    sure = f"95 %: {percent_interval(low, high)}" if known else ONE_BLOCK
    return f"costs {percent(verdict['regret'])} of the throughput at the best, k̂ = {k_hat} ({sure})"


def verdict_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the verdict as label and value, one a line."""
    verdict, rejected = results["verdict"], len(results["rejected"])
    grid = measured_grid(results)
    low, high = results.get("k_star_range") or (None, None)
    chosen = verdict["indifference_set"]
    return [
        (
            "k* offline",
            f"{results['k_star']}"
            + (f" (95 %: {low} to {high})" if low is not None else "")
            + f"; from measured curves {results['k_star_measured']}, "
            f"single-exit {results['k_star_single_exit']}",
        ),
        ("k* online", f"{threshold(results['k_star_online'])}, {online_basis(results)}"),
        (
            "k̂",
            f"{threshold(results['k_hat'])}, the best of {count(len(grid), 'threshold')} measured",
        ),
        (
            "regret of k*",
            f"{percent(verdict['regret'])} (95 %: "
            f"{percent_interval(verdict['regret_low'], verdict['regret_high'])}; "
            f"{count(verdict['n_blocks'], 'block')})",
        ),
        (
            "not told from k̂",
            f"k = {thresholds(chosen)}" if chosen else "unknown without an interval",
        ),
        (
            "requests/s",
            f"k* {significant(results['throughput_k_star'])}, "
            f"k̂ {significant(results['throughput_k_hat'])}, "
            f"online {significant(results['throughput_online'])}, "
            f"mixed {significant(results['throughput_mixed'])}",
        ),
        ("rejected runs", str(rejected) if rejected else "none"),
        *_memory(results),
        *_latency_guard(results),
        *_several_devices(results),
        *_disturbed(results),
        *_doubted(results),
    ]


def online_basis(results: dict[str, Any]) -> str:
    """Say what k* online and p̂ rest on, or why there are none."""
    online = results["online_estimation"]
    updates = count(online["updates"], "update")
    if not online["updates"]:
        return "the run ended before the first update"
    if online["steady_updates"]:
        return f"median of {online['steady_updates']} of {updates}: those in the steady window"
    if online["steady_completions"] is None:
        return f"none of {updates} counts: the run has no steady window, raise num_requests"
    return (
        f"none of {updates} lies in the steady window; raise num_requests, or lower "
        "kstar_update_interval"
    )


def _memory(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what N* is, and how often KV memory ran out against what was tolerated."""
    memory = results.get("memory")
    if not memory:
        return []
    measured, bounds = memory["measured"], memory["bounds"]
    risk = "whether KV memory runs out is not known: no run at k* counts"
    if measured["cycles"]:
        risk = (
            f"KV memory ran out in {measured['out_of_memory_cycles']} of "
            f"{count(measured['cycles'], 'cycle')} at k*, "
            f"{percent(measured['out_of_memory_rate'])} against the tolerated "
            f"{percent(memory['oom_tolerance'])}; {count(measured['preemptions'], 'preemption')}, "
            f"{count(measured['cut_short_refills'], 'refill')} cut short"
        )
    return [
        (
            "N*",
            f"{memory['n_slots']} slots in {memory['budget']['tokens']:,} KV tokens "
            f"(published bound {bounds['published']['n_slots']}); {risk}",
        )
    ]


def _latency_guard(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say how many refills a latency guard forced: those of another policy than k's."""
    blocks = [block for block in results["throughput_by_k"].values() if block["n"]]
    forced = sum(block["n"] * block["forced_refills"] for block in blocks)
    if not forced:
        return []
    share = forced / sum(block["n"] * block["refills"] for block in blocks)
    return [("latency guard", f"max_hold_s forced {percent(share)} of the refills before k")]


def _several_devices(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say which blocks cannot compare their k fairly."""
    blocks = blocks_on_several_devices(results["devices"])
    if not blocks:
        return []
    names = ", ".join(map(str, blocks))
    return [
        (
            "devices",
            f"in {'block' if len(blocks) == 1 else 'blocks'} {names} not all k ran on one device; "
            "measure the run.json files of those blocks again with --forcerun",
        )
    ]


def _disturbed(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say whether the machine was quiet, where it was not."""
    found = results["self_checks"]
    if not found["disturbed"]:
        return []
    worst = found["worst"]
    return [
        (
            "machine",
            f"not quiet in {found['disturbed']} of {count(found['checks'], 'self-check')}: "
            f"{'; '.join(worst['warnings'])}; likely cause: {worst['likely_cause']}",
        )
    ]


def doubt_clause(verdict: dict[str, Any]) -> str:
    """Say why a verdict should not be trusted, as the end of its sentence; empty where it can."""
    reasons = [_doubt(one) for one in verdict.get("doubts", [])]
    return f"; not to be trusted: {in_a_row(reasons)}" if reasons else ""


def _doubt(one: dict[str, Any]) -> str:
    match one["kind"]:
        case "load":
            cores = count(one["cores"], "core")
            return f"the load average was {one['load_average']:.1f} on {cores}"
        case "fit":
            return f"the {one['part']} fit has R² {one['r_squared']:.2f}"
        case "prediction":
            return f"the prediction errs by {percent(one['error'], 0)}"
        case "cut":
            return f"{percent(one['answers'] / one['of'], 0)} of the answers were cut at the limit"
        case "memory":
            return f"KV memory ran out in {percent(one['cycles'] / one['of'], 0)} of the cycles"
        case _:
            return two_times(one["worst"])


def two_times(modes: dict[str, Any]) -> str:
    """Say that decode steps of one size take two times; see `pdswitch.profiling.modes`."""
    fast, slow = (1e3 * value for value in modes["modes_s"])
    return f"decode steps of {count(modes['requests'], 'request')} take {fast:.3g} or {slow:.3g} ms"


def _doubted(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Say in full what speaks against the verdict, and what helps."""
    found = [_doubt_in_full(one) for one in results["verdict"].get("doubts", [])]
    return [("not to be trusted", "; ".join(found))] if found else []


def _doubt_in_full(one: dict[str, Any]) -> str:
    match one["kind"]:
        case "load":
            return (
                f"{_doubt(one)} at its highest, above the cores in {one['runs']} of "
                f"{count(one['of'], 'run')}: stop other programs"
            )
        case "fit":
            return f"{_doubt(one)}, k* rests on it: see the residuals, raise the profile's samples"
        case "prediction":
            return f"{_doubt(one)} in the mean over the measured k: see where it errs"
        case "cut":
            return f"{_doubt(one)}, {one['answers']} of {one['of']}: raise max_output_tokens"
        case "memory":
            return (
                f"{_doubt(one)} at k*, {one['cycles']} of {one['of']}, where "
                f"{percent(one['tolerated'])} is tolerated: lower oom_tolerance"
            )
        case _:
            worst = one["worst"]
            profile = " and in the profile" if one["profile"] else ""
            return (
                f"{two_times(worst)}, {percent(worst['slow_share'], 0)} of {worst['steps']} steps "
                f"the longer ({worst['where']}); so in {one['runs']} of {count(one['of'], 'run')}"
                f"{profile}: see the self-check in docs/engine.md"
            )


def checks(results: dict[str, Any]) -> str:
    """Say what the gate made sure of in every run; see `pdswitch.analysis.validity`."""
    made_sure = ["no step mixes phases under a fixed k"]
    if results["lengths"] != "natural":
        made_sure.insert(0, "tokens out are tokens asked for")
    if not results.get("memory"):
        made_sure += ["nothing was preempted", "KV memory cut no refill short"]
    made_sure += ["no prompt came from the prefix cache", "no request is missing"]
    return f"in every run {', '.join(made_sure)}, and step times add up to the clock"


def seal(prediction: dict[str, Any]) -> str:
    """Say whether the prediction came before its measurements."""
    written, first = _moment(prediction["computed_at"]), prediction.get("first_run_at")
    since = f", the first run of the sweep began at {_moment(first)}" if first else ""
    if prediction["sealed"]:
        return f"Sealed: the prediction was written at {written}{since}."
    return (
        f"Not sealed: the prediction was computed again at {written}{since}; "
        "it is no forecast of these runs."
    )


def _moment(iso: str) -> str:
    return datetime.fromisoformat(iso).isoformat(sep=" ", timespec="seconds")
