"""From what `fit_steps` found to the step times of the theory."""

from typing import Any

from pdswitch.theory import ContextDecode, StepTimes, TabulatedPrefill


def step_times_of(fit: dict[str, Any]) -> StepTimes:
    """Return the straight lines of a fit."""
    prefill, decode = fit["prefill"]["linear"], fit["decode"]["linear"]
    return StepTimes(prefill["alpha_p"], prefill["beta_p"], decode["alpha_d"], decode["beta_d"])


def measured_curves(fit: dict[str, Any]) -> tuple[TabulatedPrefill, ContextDecode]:
    """Return the measured curves of a fit: prefill tabulated, decode with its context term."""
    table, context = fit["prefill"]["table"], fit["decode"]["context"]
    return (
        TabulatedPrefill(tuple(table["tokens"]), tuple(table["seconds"])),
        # Noise can make a slope negative, which no step time has.
        ContextDecode(*(max(context[name], 0.0) for name in ("alpha_d", "beta_d", "gamma_d"))),
    )
