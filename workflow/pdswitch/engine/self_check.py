"""Whether a machine is quiet enough to measure on: one decode step, repeated at two batch sizes.

The engine checks itself before a measurement. Equal steps should take equal times; where they do
not, other programs use the cores, a clock changes, or threads share a core.
"""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from pdswitch.profiling.two_modes import two_modes

STEPS = 50
# The first steps after a pause are slower, until the clocks have risen.
SETTLING_STEPS = 5
FEWEST_STEPS = 10
# How long a check holds: this time, or so many times as long as the check took.
VALID_S = 60.0
VALID_COSTS = 20.0
# From the 10th to the 90th percentile, as a share of the median.
LARGEST_SPREAD = 0.2


def judge(
    durations_s: Mapping[int, Sequence[float]],
    conditions: Mapping[str, Any],
    workers: Sequence[Mapping[str, Any]],
    machine_cores: int,
) -> dict[str, Any]:
    """Return what a self-check found.

    Args:
        durations_s: by batch size, the times of equal decode steps, s.
        conditions: see `pdswitch.engine.hardware.Hardware.conditions`.
        workers: facts of the workers, see `pdswitch.engine.worker.WorkerFacts`.
        machine_cores: cores of the machine, which its load average counts for.

    Returns:
        `decode`: of each batch size `median_s`, `spread` and the two modes `modes_s` or None;
        `load_average` and `cores`; `warnings`, a sentence each; `likely_cause`, None without a
        warning.
    """
    load = conditions["load_average"]
    decode = [
        {"batch_size": size, **_described(times)}
        for size, times in sorted(durations_s.items())
        if len(times) >= FEWEST_STEPS
    ]
    warnings = [warning for step in decode if (warning := _warning(step))]
    busy = load > machine_cores
    if busy:
        warnings.append(f"the load average is {load:.1f} on {machine_cores} cores")
    nice = max((worker["nice"] for worker in workers), default=0)
    if nice > 0:
        warnings.append(f"the engine runs at nice {nice}")
    cause = _likely_cause(conditions, workers, busy, nice) if warnings else None
    return {
        "decode": decode,
        "load_average": load,
        "cores": machine_cores,
        "warnings": warnings,
        "likely_cause": cause,
    }


def _described(times: Sequence[float]) -> dict[str, Any]:
    tenths = quantiles(times, n=10, method="inclusive")
    middle, modes = median(times), two_modes(times)
    return {
        "median_s": middle,
        "spread": (tenths[-1] - tenths[0]) / middle,
        "modes_s": list(modes) if modes else None,
    }


def _warning(step: Mapping[str, Any]) -> str | None:
    size, modes = step["batch_size"], step["modes_s"]
    steps = f"equal decode steps of {size} request{'s' if size > 1 else ''}"
    if modes:
        return f"{steps} take {1e3 * modes[0]:.1f} ms or {1e3 * modes[1]:.1f} ms"
    if step["spread"] > LARGEST_SPREAD:
        return f"{steps} differ by {100 * step['spread']:.0f} %"
    return None


def _likely_cause(
    conditions: Mapping[str, Any], workers: Sequence[Mapping[str, Any]], busy: bool, nice: int
) -> str:
    crowded = [w for w in workers if w["cores"] and w["torch_threads"] > w["cores"]]
    reasons = {
        reason
        for device in conditions["devices"]
        for reason in device["throttle_reasons"] or []
        if reason.endswith(("slowdown", "power_cap"))
    }
    if crowded:
        threads, cores = crowded[0]["torch_threads"], crowded[0]["cores"]
        return f"{threads} torch threads share {cores} core{'s' if cores > 1 else ''}"
    if busy:
        return "other programs, or what ran just before, such as the start of the engine"
    if nice > 0:
        return "other programs go before an engine with a niceness"
    if reasons:
        return f"the device lowers its clocks ({', '.join(sorted(reasons))})"
    return "another program or another guest of the host, or a clock that changes"
