"""How k* moves with each parameter."""

import numpy as np
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.theory.closed_form import optimal_threshold
from pdswitch.theory.curves import FloatArray
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import PerCompletion, check_not_negative, check_slots

IntArray = NDArray[np.int64]


def sensitivity(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes,
    mean_prompt_tokens: float,
    factor: float = 4.0,
    points: int = 41,
    per_completion: PerCompletion = "expected",
) -> dict[str, tuple[FloatArray, IntArray]]:
    """Return k* as each parameter alone runs from its value / factor to its value · factor.

    With ``expected``, beta_p, beta_d and the prompt length are shown to have no effect.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        step_times: the linear step times.
        mean_prompt_tokens: mean prompt length, tokens.
        factor: how far to go, above 1.
        points: values per parameter.
        per_completion: see `optimal_threshold`.

    Returns:
        By name of the parameter: its values (probabilities end at 1, slots are whole) and k*.

    Raises:
        InputError: for arguments outside their range.
    """
    check_slots(n_slots)
    check_not_negative("mean_prompt_tokens", mean_prompt_tokens)
    if not factor > 1.0:
        raise InputError(f"factor must be above 1, got {factor}")
    base = {
        "n_slots": float(n_slots),
        "termination_probability": termination_probability,
        "alpha_p": step_times.alpha_p,
        "beta_p": step_times.beta_p,
        "alpha_d": step_times.alpha_d,
        "beta_d": step_times.beta_d,
        "mean_prompt_tokens": mean_prompt_tokens,
    }
    found = {}
    for name, value in base.items():
        values = value * np.geomspace(1.0 / factor, factor, points)
        if name == "termination_probability":
            values = np.unique(np.minimum(values, 1.0))
        if name == "n_slots":
            values = np.unique(np.maximum(np.rint(values), 1.0))
        k_star = []
        for moved in values:
            at = base | {name: float(moved)}
            k_star.append(
                optimal_threshold(
                    int(at["n_slots"]),
                    at["termination_probability"],
                    at["alpha_p"],
                    at["alpha_d"],
                    at["beta_d"],
                    per_completion,
                )
            )
        found[name] = (values, np.array(k_star))
    return found
