"""Every form of k*, and the throughput around it, from five numbers."""

from typing import Any

import numpy as np

from pdswitch.theory.asymptote import asymptotic_theta, fixed_cost_ratio
from pdswitch.theory.closed_form import first_argmax, optimal_threshold, predicted_throughput
from pdswitch.theory.exact import exact_throughput
from pdswitch.theory.overshoot import corrected_throughput
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.table import transition_points


def analyse(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes,
    mean_prompt_tokens: float,
) -> dict[str, Any]:
    """Return every form of k* and the throughput at a few thresholds, as plain values.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        step_times: the linear step times.
        mean_prompt_tokens: mean prompt length, tokens.

    Raises:
        InputError: for arguments outside their range.
    """
    p = termination_probability
    times = (step_times.alpha_p, step_times.alpha_d)
    k_star = optimal_threshold(n_slots, p, *times)
    single_exit = optimal_threshold(n_slots, p, *times, step_times.beta_d, "single_exit")
    corrected = corrected_throughput(n_slots, p, step_times, mean_prompt_tokens)
    predicted = predicted_throughput(n_slots, p, step_times, mean_prompt_tokens)
    ratio = fixed_cost_ratio(p, *times)
    theta = float(asymptotic_theta(ratio))
    best = first_argmax(corrected)
    powers = [2**i for i in range(n_slots.bit_length())]
    shown = sorted({1, n_slots, k_star, single_exit, best, *powers})
    exact = exact_throughput(n_slots, p, step_times, mean_prompt_tokens, shown)
    top = max(exact)
    p_at, k_above = transition_points(n_slots, *times)
    around = [
        float(p_at[k_above == k][0]) if (k_above == k).any() else None for k in (k_star, k_star + 1)
    ]
    return {
        "n_slots": n_slots,
        "termination_probability": p,
        "alpha_p": step_times.alpha_p,
        "beta_p": step_times.beta_p,
        "alpha_d": step_times.alpha_d,
        "beta_d": step_times.beta_d,
        "mean_prompt_tokens": mean_prompt_tokens,
        "k_star": k_star,
        "k_star_corrected": best,
        "k_star_single_exit": single_exit,
        "k_star_asymptotic": round(min(max(theta * n_slots, 1.0), n_slots), 2),
        "theta": theta,
        "ratio": None if np.isinf(ratio) else ratio,
        "p_range_of_k_star": around,
        "thresholds": [
            {
                "threshold": k,
                "predicted": float(predicted[k - 1]),
                "corrected": float(corrected[k - 1]),
                "exact": float(value),
                "loss_percent": float(100.0 * (1.0 - value / top)),
            }
            for k, value in zip(shown, exact, strict=True)
        ],
    }


def render(found: dict[str, Any]) -> str:
    """Return the analysis as text for a terminal."""
    low, high = (f"{p:.3g}" if p is not None else end for p, end in _range_ends(found))
    lines = [
        f"k* = {found['k_star']} of {found['n_slots']} slots "
        f"(stays so for p from {low} to {high}; now {found['termination_probability']:.3g})",
        f"  with overshoot         {found['k_star_corrected']}",
        f"  asymptotic theta·N     {found['k_star_asymptotic']:.1f} (theta {found['theta']:.4f})",
        f"  published single-exit  {found['k_star_single_exit']}",
        "",
        "throughput in requests/s; loss against the best exact value shown",
        f"{'k':>6} {'predicted':>11} {'corrected':>11} {'exact':>11} {'loss':>8}",
    ]
    marks = {found["k_star"]: " k*", found["k_star_single_exit"]: " single-exit"}
    lines += [
        f"{row['threshold']:>6} {row['predicted']:>11.4g} {row['corrected']:>11.4g} "
        f"{row['exact']:>11.4g} {row['loss_percent']:>7.2f}%{marks.get(row['threshold'], '')}"
        for row in found["thresholds"]
    ]
    return "\n".join(lines)


def _range_ends(found: dict[str, Any]) -> list[tuple[float | None, str]]:
    return list(zip(found["p_range_of_k_star"], ("0", "1"), strict=True))
