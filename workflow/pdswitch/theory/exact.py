"""The switching policy solved exactly, as a Markov chain on the number of active requests.

Lengths are geometric on 1, 2, ...; a refill of f requests emits their first tokens, so that
Binomial(f, p) of them end in it; a decode step with j active ends Binomial(j, p). In the
stationary regime completions equal admissions, and throughput is the mean number refilled over
the mean time of a cycle (renewal-reward). Prompt lengths enter by their mean: T_p(f·L).
"""

from collections.abc import Sequence

import numpy as np

from pdswitch.errors import InputError
from pdswitch.theory._chain import binomial_rows, stationary_cycle
from pdswitch.theory.closed_form import first_argmax
from pdswitch.theory.context import decode_table
from pdswitch.theory.curves import FloatArray, StepCurves
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import check_not_negative, check_probability, check_slots

TOLERANCE = 1e-12
MAX_ROUNDS = 10_000


def exact_throughput(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes | StepCurves,
    mean_prompt_tokens: float,
    thresholds: Sequence[int] | None = None,
) -> FloatArray:
    """Return the stationary throughput of the policy, exactly, for each threshold.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        step_times: linear times, or any pair of curves.
        mean_prompt_tokens: mean prompt length, tokens.
        thresholds: the k wanted; None means 1..N.

    Returns:
        Requests per second, in the order of `thresholds`.

    Raises:
        InputError: for arguments outside their range, or if a cycle takes no time.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    check_not_negative("mean_prompt_tokens", mean_prompt_tokens)
    wanted = range(1, n_slots + 1) if thresholds is None else thresholds
    for k in wanted:
        if not 1 <= k <= n_slots:
            raise InputError(f"a threshold must be from 1 to n_slots = {n_slots}, got {k}")
    curves = step_times.curves if isinstance(step_times, StepTimes) else step_times
    slots = np.arange(n_slots + 1.0)
    refill_seconds = np.concatenate(([0.0], curves.prefill(slots[1:] * mean_prompt_tokens)))
    throughput = np.empty(len(wanted))
    if p == 1.0:
        # Every request ends with its first token: all N slots are refilled, nothing decodes.
        with np.errstate(divide="ignore"):
            throughput[:] = n_slots / refill_seconds[n_slots]
    else:
        rows = binomial_rows(n_slots, p)
        freed = np.zeros(n_slots + 1)
        for place, k in enumerate(wanted):
            # The last threshold's law, moved to the one wanted, is a close first guess.
            freed = _at_least(freed, k)
            refills, steps, freed, change = stationary_cycle(
                freed, k, p, *rows, TOLERANCE, MAX_ROUNDS
            )
            if change > TOLERANCE:
                raise InputError(
                    f"the chain of n_slots={n_slots}, p={p}, k={k} does not settle ({change:.1e} "
                    "left); use fewer slots, or a larger termination probability"
                )
            table, per_completion = decode_table(curves.decode, n_slots, k, p, mean_prompt_tokens)
            refilled = refills @ slots
            seconds = refills @ refill_seconds + steps @ table + refilled * per_completion
            with np.errstate(divide="ignore"):
                throughput[place] = refilled / seconds
    if not np.isfinite(throughput).all():
        raise InputError(
            "with these step times a cycle takes no time at all; give a positive prefill time"
        )
    return throughput


def optimal_threshold_exact(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes | StepCurves,
    mean_prompt_tokens: float,
) -> tuple[int, FloatArray]:
    """Return the k that is best on the exact chain (of ties the smallest), and the whole curve.

    Arguments and errors as for `exact_throughput`.
    """
    throughput = exact_throughput(n_slots, termination_probability, step_times, mean_prompt_tokens)
    return first_argmax(throughput), throughput


def _at_least(freed: FloatArray, threshold: int) -> FloatArray:
    """Return a law on `threshold`..N that is `freed` with the mass below moved up."""
    moved = freed.copy()
    moved[threshold] += moved[:threshold].sum()
    moved[:threshold] = 0.0
    if moved.sum() == 0.0:
        moved[threshold] = 1.0
    return moved
