"""When a verdict should not be trusted: what speaks against its numbers, in numbers."""

from typing import Any

from scipy import stats

LEAST_R_SQUARED = 0.5
LARGEST_ERROR = 0.2
LARGEST_SHARE_CUT = 0.5
# Chance of so many cycles without memory, if the tolerated risk were the true one.
SIGNIFICANCE = 0.05


def doubts(results: dict[str, Any], facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what speaks against the verdict; each with its `kind`, and the numbers of that kind.

    Args:
        results: content of `{dataset}_results.json` without its verdict.
        facts: content of the `run.json` of every run, the online run included.

    Returns:
        * `load`: in `runs` of `of` runs the machine's load average exceeded its cores; of the worst
          of them `load_average` and `cores`.
        * `fit`: the straight fit of a `part` (prefill, decode) has an `r_squared` below 0.5.
        * `prediction`: the mean absolute `error` over the measured k exceeds 20 %.
        * `cut`: of `of` answers of the termination run `answers`, more than half, reached the limit
          before they ended. A length that was asked for is no cut.
        * `step_modes`: decode steps of one size take two times; as `step_modes` of the results.
        * `memory`: KV memory ran out in `cycles` of `of`, too many for the `tolerated` share.
    """
    return [
        *_load(facts),
        *_fits(results["timing"]),
        *_prediction(results["prediction"]["mape_corrected"]),
        *_cut(results["offline_estimation"]),
        *_step_modes(results["step_modes"]),
        *_memory(results["memory"]),
    ]


def _load(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    worst = [max(map(_load_over_cores, _samples(one)), default=(0.0, 0.0, 1)) for one in facts]
    over = [sample for sample in worst if sample[0] > 1]
    if not over:
        return []
    _, load, cores = max(over)
    return [
        {
            "kind": "load",
            "load_average": load,
            "cores": cores,
            "runs": len(over),
            "of": len(facts),
        }
    ]


def _samples(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of the machine before, at the self-check, and after a run."""
    conditions = facts.get("conditions", {})
    samples = [conditions.get(name) or {} for name in ("before", "self_check", "after")]
    # Older records do not tell the cores.
    return [sample for sample in samples if sample.get("cores")]


def _load_over_cores(sample: dict[str, Any]) -> tuple[float, float, int]:
    load, cores = sample["load_average"], sample["cores"]
    return load / cores, load, cores


def _fits(timing: dict[str, Any]) -> list[dict[str, Any]]:
    found = {part: timing[part]["linear"]["r_squared"] for part in ("prefill", "decode")}
    return [
        {"kind": "fit", "part": part, "r_squared": value}
        for part, value in found.items()
        if value < LEAST_R_SQUARED
    ]


def _prediction(error: float | None) -> list[dict[str, Any]]:
    if error is None or not error > LARGEST_ERROR:
        return []
    return [{"kind": "prediction", "error": error}]


def _cut(offline: dict[str, Any]) -> list[dict[str, Any]]:
    cut, count = offline["truncated"], offline["n"]
    if cut <= LARGEST_SHARE_CUT * count:
        return []
    return [{"kind": "cut", "answers": cut, "of": count}]


def _step_modes(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"kind": "step_modes", **found}] if found["worst"] else []


def _memory(memory: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not memory or not memory["measured"]["cycles"]:
        return []
    measured, tolerated = memory["measured"], memory["oom_tolerance"]
    bad, cycles = measured["out_of_memory_cycles"], measured["cycles"]
    if stats.binom.sf(bad - 1, cycles, tolerated) >= SIGNIFICANCE:
        return []
    return [{"kind": "memory", "cycles": bad, "of": cycles, "tolerated": tolerated}]
