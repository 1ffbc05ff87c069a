"""Compute k* and everything the theory says of a dataset, before its sweep is measured."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from pdswitch.analysis.termination import Termination, read_termination
from pdswitch.files import write_json
from pdswitch.profiling.curves import measured_curves, step_times_of
from pdswitch.profiling.fit import fit_steps
from pdswitch.stages.entry import stage
from pdswitch.stages.store import add_store_arguments, stored_result
from pdswitch.theory import (
    asymptotic_theta,
    corrected_throughput,
    fixed_cost_ratio,
    k_star_measured,
    optimal_threshold,
    predicted_throughput,
    sensitivity,
    single_exit_distribution,
    threshold_distribution,
    threshold_table,
    threshold_table_measured,
    throughput_band,
)

# No answer is longer than a million tokens; at p = 1 every one has a single token.
TABLE_RANGE = (1e-6, 1.0)


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=Path, required=True, help="steps.parquet of the profile")
    parser.add_argument("--termination", type=Path, required=True, help="termination.json")
    parser.add_argument(
        "--options",
        type=json.loads,
        required=True,
        help="n_slots, per_completion, kstar_table, max_num_batched_tokens, seed; as JSON",
    )
    parser.add_argument("--output", type=Path, required=True, help="threshold.json")
    add_store_arguments(parser)
    arguments = parser.parse_args()
    # The same prediction again was made when it was made first: it stays sealed.
    stored = stored_result(Path(__file__), arguments, [arguments.output], print)
    if stored.restore():
        return
    result = compute(
        pd.read_parquet(arguments.steps),
        read_termination(arguments.termination),
        arguments.options,
    )
    write_json(arguments.output, result)
    stored.save()
    print(
        f"k* = {result['k_star']} of {result['n_slots']} slots "
        f"(95 %: {result['k_star_range'][0]} to {result['k_star_range'][1]}); with measured curves "
        f"{result['k_star_measured']}; published variant {result['k_star_single_exit']}"
    )


def compute(
    steps: pd.DataFrame,
    termination: Termination,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of `threshold.json`.

    Args:
        steps: of the profile.
        termination: content of `termination.json`.
        options: see the command line.

    Raises:
        InputError: if the profile or the estimate of p does not allow a prediction.
    """
    n_slots, p = options["n_slots"], termination.termination_probability
    error, prompt = termination.standard_error, termination.mean_prompt_tokens
    # One refill is at least one request, and at most N of them or what one step takes.
    largest = min(n_slots * prompt, options["max_num_batched_tokens"])
    fit = fit_steps(steps, n_slots, (termination.min_prompt_tokens, largest))
    prefill, decode = fit["prefill"]["linear"], fit["decode"]["linear"]
    times = step_times_of(fit)
    ratio = fixed_cost_ratio(p, times.alpha_p, times.alpha_d)
    theta = float(asymptotic_theta(ratio))
    closed = {
        form: optimal_threshold(n_slots, p, times.alpha_p, times.alpha_d, times.beta_d, form)
        for form in ("expected", "single_exit")
    }
    curves = measured_curves(fit)
    measured, measured_curve = k_star_measured(n_slots, p, *curves, prompt)
    # The two fits rest on different steps: their errors are independent.
    covariance = block_diag(prefill["covariance"], decode["covariance"])
    seed, form = options["seed"], options["per_completion"]
    at = (n_slots, p, error, times.alpha_p, times.alpha_d)
    if form == "expected":
        distribution = threshold_distribution(*at, covariance[::2, ::2], seed=seed)
    else:
        without_beta_p = np.delete(np.delete(covariance, 1, axis=0), 1, axis=1)
        distribution = single_exit_distribution(*at, times.beta_d, without_beta_p, seed=seed)
    low, high = throughput_band(n_slots, p, error, times, prompt, covariance, seed=seed)
    edges, thresholds = table = threshold_table(
        n_slots, times.alpha_p, times.alpha_d, *TABLE_RANGE, times.beta_d, form
    )
    if options["kstar_table"] == "measured_curves":
        table = threshold_table_measured(n_slots, *curves, prompt, *TABLE_RANGE)
    moved = sensitivity(n_slots, p, times, prompt, per_completion=form)
    return {
        "n_slots": n_slots,
        "termination_probability": p,
        "standard_error": error,
        "mean_prompt_tokens": prompt,
        "timing": fit,
        "ratio": ratio,
        "theta": theta,
        "per_completion": form,
        "k_star": closed[form],
        "k_star_expected": closed["expected"],
        "k_star_single_exit": closed["single_exit"],
        "k_star_measured": measured,
        "k_star_asymptotic": theta * n_slots,
        "k_star_range": distribution.interval(),
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
            name: {"values": values, "k_star": found} for name, (values, found) in moved.items()
        },
        "transition_points": [
            {"p": edge, "k": k} for edge, k in zip(edges, thresholds[1:], strict=True)
        ],
        "table": dict(zip(("p_edges", "thresholds"), table, strict=True)),
        "computed_at": datetime.now(UTC).isoformat(),
    }


if __name__ == "__main__":
    main()
