"""Compute k* and everything the theory says of a dataset, before its sweep is measured."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from pdswitch.files import read_json, write_json
from pdswitch.profiling.fit import fit_steps
from pdswitch.theory import (
    ContextDecode,
    StepTimes,
    TabulatedPrefill,
    asymptotic_theta,
    corrected_throughput,
    k_star_measured,
    kv_budget_tokens,
    memory_safe_slots,
    optimal_threshold,
    predicted_throughput,
    sensitivity,
    threshold_distribution,
    threshold_table,
    throughput_band,
    transition_points,
)

# No answer is longer than a million tokens; at p = 1 every one has a single token.
TABLE_RANGE = (1e-6, 1.0)
GB = 1e9


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=Path, required=True, help="steps.parquet of the profile")
    parser.add_argument("--termination", type=Path, required=True, help="termination.json")
    parser.add_argument("--model", type=Path, required=True, help="model.json")
    parser.add_argument(
        "--options",
        type=json.loads,
        required=True,
        help="n_slots, per_completion, max_num_batched_tokens, seed, memory; as JSON",
    )
    parser.add_argument("--output", type=Path, required=True, help="threshold.json")
    arguments = parser.parse_args()
    try:
        result = compute(
            pd.read_parquet(arguments.steps),
            read_json(arguments.termination),
            read_json(arguments.model),
            arguments.options,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_json(arguments.output, result)
    print(
        f"k* = {result['k_star']} of {result['n_slots']} slots "
        f"(95 %: {result['k_star_range'][0]} to {result['k_star_range'][1]}); with measured curves "
        f"{result['k_star_measured']}; published variant {result['k_star_single_exit']}"
    )


def compute(
    steps: pd.DataFrame,
    termination: dict[str, Any],
    model: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of `threshold.json`.

    Args:
        steps: of the profile.
        termination: content of `termination.json`.
        model: content of `model.json`.
        options: see the command line.

    Raises:
        ValueError: if the profile or the estimate of p does not allow a prediction.
    """
    n_slots, p = options["n_slots"], termination["termination_probability"]
    error, prompt = termination["standard_error"], termination["mean_prompt_tokens"]
    # One refill is at least one request, and at most N of them or what one step takes.
    largest = min(n_slots * prompt, options["max_num_batched_tokens"])
    fit = fit_steps(steps, n_slots, (termination["min_prompt_tokens"], largest))
    prefill, decode = fit["prefill"]["linear"], fit["decode"]["linear"]
    times = StepTimes(prefill["alpha_p"], prefill["beta_p"], decode["alpha_d"], decode["beta_d"])
    ratio = p * times.alpha_p / times.alpha_d
    theta = float(asymptotic_theta(ratio))
    closed = {
        form: optimal_threshold(n_slots, p, times.alpha_p, times.alpha_d, times.beta_d, form)
        for form in ("expected", "single_exit")
    }
    measured, measured_curve = k_star_measured(n_slots, p, *measured_curves(fit), prompt)
    # The two fits rest on different steps: their errors are independent.
    covariance = block_diag(prefill["covariance"], decode["covariance"])
    seed = options["seed"]
    distribution = threshold_distribution(
        n_slots, p, error, times.alpha_p, times.alpha_d, covariance[::2, ::2], seed=seed
    )
    low, high = throughput_band(n_slots, p, error, times, prompt, covariance, seed=seed)
    edges, thresholds = threshold_table(n_slots, times.alpha_p, times.alpha_d, *TABLE_RANGE)
    k_star = closed[options["per_completion"]]
    return {
        "n_slots": n_slots,
        "termination_probability": p,
        "standard_error": error,
        "mean_prompt_tokens": prompt,
        "timing": fit,
        "ratio": ratio,
        "theta": theta,
        "per_completion": options["per_completion"],
        "k_star": k_star,
        "k_star_expected": closed["expected"],
        "k_star_single_exit": closed["single_exit"],
        "k_star_measured": measured,
        "k_star_asymptotic": theta * n_slots,
        "k_star_range": distribution.interval(),
        "memory_safe_slots": safe_slots(termination, model, times, options["memory"]),
        "predicted": {
            "threshold": np.arange(1, n_slots + 1),
            "throughput": predicted_throughput(n_slots, p, times, prompt),
            "single_exit": predicted_throughput(n_slots, p, times, prompt, "single_exit"),
            "corrected": corrected_throughput(n_slots, p, times, prompt),
            "measured_curves": measured_curve,
            "low": low,
            "high": high,
        },
        "sensitivity": {
            name: {"values": values, "k_star": found}
            for name, (values, found) in sensitivity(n_slots, p, times, prompt).items()
        },
        "transition_points": [
            {"p": edge, "k": k}
            for edge, k in zip(
                *transition_points(n_slots, times.alpha_p, times.alpha_d), strict=True
            )
        ],
        "table": {"p_edges": edges, "thresholds": thresholds},
        "computed_at": datetime.now(UTC).isoformat(),
    }


def safe_slots(
    termination: dict[str, Any],
    model: dict[str, Any],
    times: StepTimes,
    memory: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Return N* by both bounds, or None if nobody asked for it.

    Args:
        termination: content of `termination.json`.
        model: content of `model.json`.
        times: the straight fits.
        memory: gpu_memory_gb, gpu_memory_utilization, model_memory_gb, kv_cache_bytes and
            oom_tolerance of the config; None where optimize_batch_size is false.

    Raises:
        ValueError: if the weights' size is unknown, or they leave no room for one request.
    """
    if memory is None:
        return None
    weights = memory["model_memory_gb"] and memory["model_memory_gb"] * GB
    weights = weights or model["weight_bytes"]
    if weights is None:
        raise ValueError(
            "the size of the weights is unknown, because the model has none on disk; "
            "set model_memory_gb"
        )
    budget = kv_budget_tokens(
        memory["gpu_memory_gb"] * GB * memory["gpu_memory_utilization"],
        weights,
        memory["kv_cache_bytes"] or model["kv_bytes_per_token"],
    )
    return {
        bound: asdict(
            memory_safe_slots(
                budget,
                termination["termination_probability"],
                times.alpha_p,
                times.alpha_d,
                termination["mean_prompt_tokens"],
                termination["std_prompt_tokens"] ** 2,
                memory["oom_tolerance"],
                bound,
            )
        )
        for bound in ("normal", "published")
    }


def measured_curves(fit: dict[str, Any]) -> tuple[TabulatedPrefill, ContextDecode]:
    """Return the measured curves of a fit: prefill tabulated, decode with its context term."""
    table, context = fit["prefill"]["table"], fit["decode"]["context"]
    return (
        TabulatedPrefill(tuple(table["tokens"]), tuple(table["seconds"])),
        # Noise can make a slope negative, which no step time has.
        ContextDecode(*(max(context[name], 0.0) for name in ("alpha_d", "beta_d", "gamma_d"))),
    )


if __name__ == "__main__":
    main()
