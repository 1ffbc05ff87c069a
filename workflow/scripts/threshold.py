"""Compute k* and everything the theory says of a dataset, before its sweep is measured."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdswitch.files import read_json, write_json
from pdswitch.grid import k_grid
from pdswitch.profiling.fit import fit_steps
from pdswitch.theory import (
    StepTimes,
    asymptotic_theta,
    corrected_throughput,
    curves_of_fit,
    k_star_measured,
    optimal_threshold,
    parameter_uncertainty,
    predicted_throughput,
    sensitivity,
    threshold_table,
)

SENSITIVITY_FACTORS = np.geomspace(0.25, 4, 33)


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=Path, required=True, help="steps.parquet of the profile")
    parser.add_argument("--termination", type=Path, required=True, help="termination.json")
    parser.add_argument(
        "--options",
        type=json.loads,
        required=True,
        help="n_slots, per_completion, k_grid, max_num_batched_tokens, seed; as JSON",
    )
    parser.add_argument("--output", type=Path, required=True, help="threshold.json")
    arguments = parser.parse_args()
    try:
        result = compute(
            pd.read_parquet(arguments.steps), read_json(arguments.termination), arguments.options
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
    steps: pd.DataFrame, termination: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of `threshold.json`.

    Args:
        steps: of the profile.
        termination: content of `termination.json`.
        options: see the command line.

    Raises:
        ValueError: if the profile or the estimate of p does not allow a prediction.
    """
    n_slots, p = options["n_slots"], termination["termination_probability"]
    prompt = termination["mean_prompt_tokens"]
    # One refill is at least one request, and at most N of them or what one step takes.
    largest = min(n_slots * prompt, options["max_num_batched_tokens"])
    fit = fit_steps(steps, n_slots, (termination["min_prompt_tokens"], largest))
    prefill, decode = fit["prefill"]["linear"], fit["decode"]["linear"]
    times = StepTimes(prefill["alpha_p"], prefill["beta_p"], decode["alpha_d"], decode["beta_d"])
    ratio = p * times.alpha_p / times.alpha_d
    closed = {
        form: optimal_threshold(n_slots, p, times.alpha_p, times.alpha_d, times.beta_d, form)
        for form in ("expected", "single_exit")
    }
    measured, measured_curve = k_star_measured(n_slots, p, *curves_of_fit(fit), prompt)
    error = parameter_uncertainty(
        n_slots,
        p,
        termination["standard_error"],
        (times.alpha_p, times.beta_p),
        np.array(prefill["covariance"]),
        (times.alpha_d, times.beta_d),
        np.array(decode["covariance"]),
        prompt,
        options["seed"],
    )
    table = threshold_table(n_slots, times.alpha_p, times.alpha_d)
    k_star = closed[options["per_completion"]]
    return {
        "n_slots": n_slots,
        "termination_probability": p,
        "standard_error": termination["standard_error"],
        "mean_prompt_tokens": prompt,
        "timing": fit,
        "ratio": ratio,
        "theta": asymptotic_theta(ratio),
        "per_completion": options["per_completion"],
        "k_star": k_star,
        "k_star_expected": closed["expected"],
        "k_star_single_exit": closed["single_exit"],
        "k_star_measured": measured,
        "k_star_asymptotic": asymptotic_theta(ratio) * n_slots,
        "k_star_range": [error.k_low, error.k_high],
        "predicted": {
            "threshold": np.arange(1, n_slots + 1),
            "throughput": predicted_throughput(n_slots, p, times, prompt),
            "single_exit": predicted_throughput(n_slots, p, times, prompt, "single_exit"),
            "corrected": corrected_throughput(n_slots, p, times, prompt),
            "measured_curves": measured_curve,
            "low": error.low,
            "high": error.high,
        },
        "sensitivity": {
            name: {"values": values, "k_star": thresholds}
            for name, (values, thresholds) in sensitivity(
                n_slots, p, times.alpha_p, times.alpha_d, SENSITIVITY_FACTORS
            ).items()
        },
        "transition_points": [
            {"p": edge, "k": int(k)}
            for edge, k in zip(table.p_edges, table.thresholds[1:], strict=True)
        ],
        "table": {"p_edges": table.p_edges, "thresholds": table.thresholds},
        "k_grid": k_grid(options["k_grid"], n_slots, k_star),
        "computed_at": datetime.now(UTC).isoformat(),
    }


if __name__ == "__main__":
    main()
