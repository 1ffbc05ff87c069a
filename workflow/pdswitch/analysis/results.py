"""From the runs of one dataset to the content of `{dataset}_results.json`."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdswitch.analysis.comparison import (
    CONFIDENCE,
    Comparison,
    Floats,
    compare_with_best,
    mean_absolute_percentage_error,
)
from pdswitch.analysis.decomposition import decompose
from pdswitch.analysis.devices import devices_of
from pdswitch.analysis.disturbances import disturbances
from pdswitch.analysis.doubts import doubts
from pdswitch.analysis.metrics import run_metrics
from pdswitch.analysis.online_run import online_estimation
from pdswitch.analysis.validity import rejections
from pdswitch.files import read_json
from pdswitch.profiling.modes import decode_modes, most_slow_steps

AVERAGED = (
    "output_tokens_per_s",
    "total_tokens_per_s",
    "refills",
    "forced_refills",
    "mean_refill",
    "kv_high_water",
)
LATENCIES = ("ttft", "tpot", "itl", "e2e")
# Enough to see the shape of a drain, few enough for a file that people read.
CURVE_POINTS = 32


@dataclass(frozen=True)
class MeasuredRun:
    """One run, judged and summed up.

    Attributes:
        folder: where its records lie.
        facts: content of `run.json`.
        metrics: see `pdswitch.analysis.metrics.run_metrics`.
        reasons: why it is not counted; empty for a valid run.
        steps: its step records.
        requests: its request records.
    """

    folder: Path
    facts: dict[str, Any]
    metrics: dict[str, Any]
    reasons: list[str]
    steps: pd.DataFrame
    requests: pd.DataFrame

    @property
    def label(self) -> str:
        """``mixed``, ``online``, or k."""
        policy = self.facts["policy"]
        return str(self.facts["threshold"]) if policy == "fixed" else str(policy)


def load_run(
    folder: Path, replayed: bool, excluded: frozenset[str], memory_bound: bool = False
) -> MeasuredRun:
    """Read the records of a run and judge it."""
    facts = read_json(folder / "run.json")
    steps = pd.read_parquet(folder / "steps.parquet")
    requests = pd.read_parquet(folder / "requests.parquet")
    return MeasuredRun(
        folder,
        facts,
        run_metrics(steps, requests, facts["n_slots"], excluded),
        rejections(steps, requests, facts, replayed, memory_bound),
        steps,
        requests,
    )


def dataset_results(
    dataset: str,
    settings: dict[str, Any],
    theory: dict[str, Any],
    termination: dict[str, Any],
    runs: list[MeasuredRun],
    online: MeasuredRun,
    history: pd.DataFrame,
    slots: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of `{dataset}_results.json`; docs/results.md describes every field.

    Args:
        dataset: its name.
        settings: model, tensor_parallel_size, num_requests, repeats, lengths.
        theory: content of `threshold.json`.
        termination: content of `termination.json`.
        runs: the sweep, ``mixed`` among it.
        online: the adaptive run.
        history: of its k*.
        slots: content of `slots.json` where N is N*.

    Where no block has a valid run of every k that has any, nothing can be compared: k̂ and all
    that rests on it are None. A k without a valid run is left out of the comparison.
    """
    valid = [run for run in runs if not run.reasons]
    thresholds = sorted({int(run.label) for run in runs if run.label != "mixed"})
    k_star = int(theory["k_star"])
    makespan = _compare(valid, "throughput")
    steady = _compare(valid, "steady_throughput")
    by_k = {str(k): _average(by_label(valid, str(k))) for k in thresholds}
    mixed = _average(by_label(valid, "mixed"))
    adaptive = _average([] if online.reasons else [online])
    k_hat = makespan.k_hat if makespan else None
    x_star = by_k[str(k_star)]["throughput"]["mean"]
    x_hat = by_k[str(k_hat)]["throughput"]["mean"] if k_hat else None
    estimated = online_estimation(history, online.steps, online.requests, theory["n_slots"])
    linear = {part: theory["timing"][part]["linear"] for part in ("prefill", "decode")}
    results = {
        "dataset": dataset,
        **settings,
        "n_slots": theory["n_slots"],
        "k_star": k_star,
        "k_star_online": estimated["k_star"],
        "k_star_measured": theory["k_star_measured"],
        "k_star_single_exit": theory["k_star_single_exit"],
        "k_star_range": theory["k_star_range"],
        "k_hat": k_hat,
        "delta_k": k_hat - k_star if k_hat else None,
        "throughput_k_star": x_star,
        "throughput_k_hat": x_hat,
        "throughput_gap_percent": 100 * (x_hat - x_star) / x_hat if x_hat else None,
        "throughput_online": adaptive["throughput"]["mean"],
        "throughput_mixed": mixed["throughput"]["mean"],
        "profiled_parameters": {
            "alpha_p": linear["prefill"]["alpha_p"],
            "beta_p": linear["prefill"]["beta_p"],
            "alpha_d": linear["decode"]["alpha_d"],
            "beta_d": linear["decode"]["beta_d"],
        },
        "timing": theory["timing"],
        "offline_estimation": termination,
        "online_estimation": estimated,
        "throughput_by_k": by_k,
        "mixed": mixed,
        "online": adaptive,
        "prediction": _prediction(theory, thresholds, by_k, runs),
        "error_decomposition": _error_decomposition(theory, by_label(valid, str(k_star))),
        "sensitivity": theory["sensitivity"],
        "transition_points": theory["transition_points"],
        "rejected": [
            {"run": str(run.folder), "reasons": run.reasons}
            for run in [*runs, online]
            if run.reasons
        ],
        "memory": slots and slots | {"measured": out_of_memory(by_label(valid, str(k_star)))},
        "truncated": termination["truncated"],
        "degenerate": termination["degenerate"],
        "environment": runs[0].facts["engine"],
        "devices": devices_of([run.facts for run in runs]),
        "self_checks": disturbances(run.facts for run in [*runs, online]),
        "step_modes": _step_modes(theory["timing"]["decode"]["modes"], [*runs, online]),
    }
    against = doubts(results, [run.facts for run in [*runs, online]])
    x_mixed = mixed["throughput"]["mean"]
    results["verdict"] = _verdict(makespan, steady, k_star, x_mixed, x_hat, against)
    return results


def by_label(runs: list[MeasuredRun], label: str) -> list[MeasuredRun]:
    """Return the runs with a label: ``mixed``, ``online``, or k."""
    return [run for run in runs if run.label == label]


def out_of_memory(runs: list[MeasuredRun]) -> dict[str, Any]:
    """Return how often KV memory ran out in these runs: cycles, those in which it did, the rate."""
    cycles = sum(run.metrics["refills"] for run in runs)
    bad = sum(run.metrics["out_of_memory_cycles"] for run in runs)
    return {
        "cycles": cycles,
        "out_of_memory_cycles": bad,
        "out_of_memory_rate": bad / cycles if cycles else None,
        "preemptions": sum(run.metrics["preemptions"] for run in runs),
        "cut_short_refills": sum(run.metrics["cut_short_refills"] for run in runs),
        "kv_high_water": max((run.metrics["kv_high_water"] for run in runs), default=None),
    }


def _compare(runs: list[MeasuredRun], metric: str) -> Comparison | None:
    """Compare every k that has a value of the metric; None without one or a complete block."""
    thresholds = sorted(
        {int(run.label) for run in runs if run.label != "mixed" and run.metrics[metric] is not None}
    )
    values = _by_block(runs, thresholds, metric)
    if not thresholds or np.isnan(values).any(axis=1).all():
        return None
    return compare_with_best(thresholds, values)


def _by_block(runs: list[MeasuredRun], thresholds: list[int], metric: str) -> Floats:
    """Return (blocks, K) with NaN where a valid run is missing."""
    blocks = sorted({run.facts["rep"] for run in runs if run.label != "mixed"})
    values = np.full((len(blocks), len(thresholds)), np.nan)
    for run in runs:
        if run.label != "mixed" and run.metrics[metric] is not None:
            place = blocks.index(run.facts["rep"]), thresholds.index(int(run.label))
            values[place] = run.metrics[metric]
    return values


def _average(runs: list[MeasuredRun]) -> dict[str, Any]:
    """Average the runs of one policy over its repeats."""
    result: dict[str, Any] = {"n": len(runs)}
    for name in ("throughput", "steady_throughput"):
        counted = [run for run in runs if run.metrics[name] is not None]
        values = [run.metrics[name] for run in counted]
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        # The online run belongs to no block.
        blocks = [run.facts.get("rep") for run in counted]
        result[name] = {"mean": _mean(values), "se": error, "values": values, "blocks": blocks}
    for name in AVERAGED:
        result[name] = _mean([r.metrics[name] for r in runs if r.metrics[name] is not None])
    for name in LATENCIES:
        result[name] = {
            q: _mean([run.metrics[name][q] for run in runs if run.metrics[name][q] is not None])
            for q in ("p50", "p95", "p99")
        }
    for name in ("preemptions", "cut_short_refills"):
        result[name] = sum(run.metrics[name] for run in runs)
    return result


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _verdict(
    makespan: Comparison | None,
    steady: Comparison | None,
    k_star: int,
    x_mixed: float,
    x_hat: float | None,
    against: list[dict[str, Any]],
) -> dict[str, Any]:
    verdict: dict[str, Any] = {
        **_judgement(makespan, k_star),
        "confidence": CONFIDENCE,
        "method": "multiple comparisons with the best over randomised complete blocks, two looks",
        "n_blocks": makespan.n_blocks if makespan else 0,
        "contenders": makespan.contenders if makespan else None,
        "noise": makespan.noise if makespan else None,
        "mixed_ratio": x_hat / x_mixed if x_hat else None,
        "doubts": against,
    }
    if steady is not None:
        verdict["steady"] = _judgement(steady, k_star)
    return verdict


def _judgement(found: Comparison | None, k_star: int) -> dict[str, Any]:
    """What a comparison says of k*; None for what it cannot say."""
    regret: dict[str, Any] = dict.fromkeys(
        ("regret", "regret_low", "regret_high", "regret_held_out")
    )
    if found is None:
        return {"k_hat": None, **regret, "indifference_set": None}
    if k_star in found.thresholds:
        place = found.thresholds.index(k_star)
        values = (found.regret, found.low, found.high, found.regret_held_out)
        regret = {
            name: None if value is None else float(value[place])
            for name, value in zip(regret, values, strict=True)
        }
    return {"k_hat": found.k_hat, **regret, "indifference_set": found.indifferent}


def _step_modes(profile: list[dict[str, Any]], runs: list[MeasuredRun]) -> dict[str, Any]:
    """Where decode steps of one size take two times: the profile, and how many of the runs."""
    found = {str(run.folder): decode_modes(run.steps) for run in runs}
    places = [("profile", profile), *found.items()]
    every = [{"where": where} | one for where, modes in places for one in modes]
    return {
        "profile": profile,
        "runs": sum(bool(modes) for modes in found.values()),
        "of": len(runs),
        "worst": max(every, key=most_slow_steps, default=None),
    }


def _prediction(
    theory: dict[str, Any], thresholds: list[int], by_k: dict[str, Any], runs: list[MeasuredRun]
) -> dict[str, Any]:
    predicted = theory["predicted"]
    known = [k for k in thresholds if by_k[str(k)]["n"]]
    # The formula knows neither ramp nor drain: the steady window, where every k has one.
    steady = all(by_k[str(k)]["steady_throughput"]["values"] for k in known)
    metric = "steady_throughput" if steady else "throughput"
    measured = np.array([by_k[str(k)][metric]["mean"] for k in known])
    at = np.array(known, dtype=int) - 1
    first_run = min(datetime.fromisoformat(run.facts["started_at"]) for run in runs)
    errors = {
        f"mape_{name}": mean_absolute_percentage_error(np.array(predicted[name])[at], measured)
        if known
        else None
        for name in ("throughput", "corrected", "measured_curves", "single_exit")
    }
    return {
        **predicted,
        **errors,
        "measured_against": "steady window" if steady else "whole run",
        "computed_at": theory["computed_at"],
        "first_run_at": first_run.isoformat(),
        "sealed": datetime.fromisoformat(theory["computed_at"]) < first_run,
    }


def _error_decomposition(theory: dict[str, Any], runs: list[MeasuredRun]) -> dict[str, Any] | None:
    """Average over the counted runs at k*, None without one."""
    if not runs:
        return None
    parts = [decompose(theory, run.facts, run.steps, run.requests) for run in runs]
    mean = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    # All that does not concern the clock, in one number.
    mean["policy_and_lengths"] = mean["total"] - mean["step_times"] - mean["outside_steps"]
    return mean


def run_rows(dataset: str, model: str, runs: list[MeasuredRun]) -> pd.DataFrame:
    """Return one row per run, for `runs.parquet`."""
    rows = []
    for run in runs:
        flat = {k: v for k, v in run.metrics.items() if not isinstance(v, dict | list)}
        for name in LATENCIES:
            flat |= {f"{name}_{q}": value for q, value in run.metrics[name].items()}
        rows.append(
            {
                "model": model,
                "dataset": dataset,
                "n_slots": run.facts["n_slots"],
                "policy": run.facts["policy"],
                "threshold": run.facts["threshold"],
                "max_hold_s": run.facts.get("max_hold_s"),
                "rep": run.facts.get("rep"),
                "started_at": run.facts["started_at"],
                "valid": not run.reasons,
                "reasons": "; ".join(run.reasons),
                **flat,
            }
        )
    frame = pd.DataFrame(rows)
    integers = ["threshold", "rep"]
    return frame.astype(dict.fromkeys(integers, "Int64") | {"max_hold_s": "float64"})


def truncated_samples(requests: pd.DataFrame, prompts: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the requests that reached max_output_tokens, with their text, for a look at them."""
    cut = requests[requests["truncated"]]
    texts = prompts.set_index("request_id")["prompt"]
    return [
        {
            "request_id": row.request_id,
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_tokens,
            "degenerate": bool(row.degenerate),
            "prompt": texts[row.request_id],
            "output": row.text,
        }
        for row in cut.itertuples(index=False)
    ]


def phases_of_run(steps: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the phases of a run: consecutive steps of one kind merged.

    Each has start_s, end_s, phase (prefill, decode, mixed, empty), steps, tokens, the requests in
    slots and waiting at its end, and `curve`: pairs of time in s and requests in slots, at most
    `CURVE_POINTS` of them, evenly spread over its steps, the last one included.
    """
    prefill, decode = steps["prefill_tokens"] > 0, steps["decode_requests"] > 0
    in_slots = (steps["running"] - steps["finished"]).to_numpy()
    done = steps["done_s"].to_numpy()
    kind = np.select(
        [prefill & decode, prefill, decode], ["mixed", "prefill", "decode"], default="empty"
    )
    phases = []
    for _, part in steps.groupby((kind != np.roll(kind, 1)).cumsum(), sort=True):
        first, last = part.iloc[0], part.iloc[-1]
        shown = np.unique(np.linspace(part.index[-1], part.index[0], CURVE_POINTS).astype(int))
        phases.append(
            {
                "start_s": float(first["done_s"] - first["duration_s"]),
                "end_s": float(last["done_s"]),
                "phase": str(kind[part.index[0]]),
                "steps": len(part),
                "tokens": int(part["prefill_tokens"].sum() + part["decode_requests"].sum()),
                "requests": int(in_slots[part.index[-1]]),
                "waiting": int(last["waiting"]),
                "curve": [[float(done[step]), int(in_slots[step])] for step in shown],
            }
        )
    return phases
