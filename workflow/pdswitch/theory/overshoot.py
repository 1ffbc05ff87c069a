"""The predicted curve with the overshoot of the refills, and with the first tokens of prefill.

A decode step ends several requests at once, so that more than k slots are free when decoding
stops. From N active requests on, let u(j) be the expected number of decode steps made with j
active; it does not depend on k. Then the sum of u(j)·j·p over j > N-k is the number of slots
freed, k + overshoot, and the sum of u(j)·t(j) is the time it takes. Prefill emits first tokens, so
that some requests end in the refill and decoding begins with s < k slots free again; the same sums
from N-s active requests on, weighted with the law of s, give the cycle.
"""

import numpy as np

from pdswitch.errors import InputError
from pdswitch.theory._chain import binomial_rows, decay, start_laws
from pdswitch.theory.closed_form import first_argmax
from pdswitch.theory.context import decode_table, is_affine
from pdswitch.theory.curves import DecodeCurve, FloatArray, PrefillCurve, StepCurves
from pdswitch.theory.exact import exact_throughput
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import check_not_negative, check_probability, check_slots

# Starts with more slots free than this part of all cases are left out.
NEGLIGIBLE_START = 1e-9
# One round for the law of the slots free at the start, two to mend its mean.
ROUNDS = 3
# Above it, most requests end in their refill and the law of the start is what matters.
CHAIN_FROM_PROBABILITY = 0.5


def expected_refill(n_slots: int, termination_probability: float) -> FloatArray:
    """Return the mean number of slots free when decoding from N requests stops at threshold k.

    k + (N-k)·p/2 is its approximation for k far above N·p and p far below 1.

    Returns:
        Requests, array of length N, index k-1.

    Raises:
        InputError: for arguments outside their range.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    if p == 1.0:
        return np.full(n_slots, float(n_slots))
    flow = np.zeros(n_slots + 1)
    flow[n_slots] = 1.0
    steps = decay(flow, 1, p, *binomial_rows(n_slots, p))
    j = np.arange(n_slots, 0, -1)
    return np.minimum(np.cumsum(steps[j] * j * p), n_slots)


def corrected_throughput(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes | StepCurves,
    mean_prompt_tokens: float,
) -> FloatArray:
    """Return X(k) for k = 1..N with overshoot and with requests that end in the refill.

    Within 1 % of `exact_throughput` for all k (docs/theory.md), in O(N·w²) for all k together, w
    being the most requests that may end in one step. For outputs of less than two tokens on
    average it is `exact_throughput`.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        step_times: linear times, or any pair of curves.
        mean_prompt_tokens: mean prompt length, tokens.

    Returns:
        Array of length N, requests per second; index k-1.

    Raises:
        InputError: for arguments outside their range, or if a cycle takes no time.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    check_not_negative("mean_prompt_tokens", mean_prompt_tokens)
    if p > CHAIN_FROM_PROBABILITY:
        return exact_throughput(n_slots, p, step_times, mean_prompt_tokens)
    curves = step_times.curves if isinstance(step_times, StepTimes) else step_times
    slots = np.arange(n_slots + 1.0)
    refill_seconds = np.concatenate(([0.0], curves.prefill(slots[1:] * mean_prompt_tokens)))
    steps = _steps_by_start(n_slots, p)
    laws, refilled, refilling = start_laws(
        refill_seconds, steps, p, *binomial_rows(n_slots, p), ROUNDS
    )
    decoding = _decode_seconds(steps, laws, curves.decode, p, mean_prompt_tokens, refilled)
    cycle = refilling + decoding
    if not (cycle > 0.0).all():
        raise InputError(
            "with these step times a cycle takes no time at all; give a positive prefill time"
        )
    return np.asarray(refilled / cycle)


def optimal_threshold_corrected(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes | StepCurves,
    mean_prompt_tokens: float,
) -> tuple[int, FloatArray]:
    """Return the argmax of `corrected_throughput` (of ties the smallest), and the whole curve.

    It knows what the closed form does not: that a refill overshoots its threshold, so that the
    best threshold lies a little lower. Arguments and errors as for `corrected_throughput`.
    """
    throughput = corrected_throughput(
        n_slots, termination_probability, step_times, mean_prompt_tokens
    )
    return first_argmax(throughput), throughput


def k_star_measured(
    n_slots: int,
    termination_probability: float,
    prefill: PrefillCurve,
    decode: DecodeCurve,
    mean_prompt_tokens: float,
) -> tuple[int, FloatArray]:
    """Return k* with measured step-time curves, and the curve whose argmax it is.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        prefill: seconds of a refill of so many tokens.
        decode: seconds of a decode step of j requests holding so many KV tokens.
        mean_prompt_tokens: mean prompt length, tokens.

    Returns:
        The smallest k within 1e-12 of the maximum of `corrected_throughput`, and that curve.

    Raises:
        InputError: for arguments outside their range.
    """
    return optimal_threshold_corrected(
        n_slots, termination_probability, StepCurves(prefill, decode), mean_prompt_tokens
    )


def _steps_by_start(n_slots: int, p: float) -> FloatArray:
    """Return u_s(j), expected decode steps with j active from N-s on; row s, index j."""
    rows = binomial_rows(n_slots, p)
    begin, first, values = rows
    law = values[begin[n_slots] : begin[n_slots + 1]]
    tail = np.cumsum(law[::-1])[::-1]
    most = int(first[n_slots] + np.count_nonzero(tail > NEGLIGIBLE_START))
    steps = np.empty((most, n_slots + 1))
    for s in range(most):
        flow = np.zeros(n_slots + 1)
        flow[n_slots - s] = 1.0
        steps[s] = decay(flow, 1, p, *rows)
    return steps


def _decode_seconds(
    steps: FloatArray,
    laws: FloatArray,
    decode: DecodeCurve,
    p: float,
    mean_prompt_tokens: float,
    refilled: FloatArray,
) -> FloatArray:
    """Return the time a cycle decodes, index k-1."""
    n_slots = len(laws)
    if is_affine(decode):
        table, per_completion = decode_table(decode, n_slots, 1, p, mean_prompt_tokens)
        # Seconds of decoding from N-s active down to N-k: row s, index k-1.
        until = np.cumsum((steps * table)[:, :0:-1], axis=1)
        return np.asarray((laws * until.T).sum(axis=1) + refilled * per_completion)
    seconds = np.empty(n_slots)
    for k in range(1, n_slots + 1):
        table, _ = decode_table(decode, n_slots, k, p, mean_prompt_tokens)
        made = laws[k - 1] @ steps[:, n_slots - k + 1 :]
        seconds[k - 1] = made @ table[n_slots - k + 1 :]
    return seconds
