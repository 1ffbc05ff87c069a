"""The predicted curve with the overshoot of the refills: fast, and close to the exact chain.

A decode step ends several requests at once, so that more than k slots are free when decoding
stops. Starting from N active requests, let u(j) be the expected number of decode steps made with
j active; it does not depend on k. Then sum of u(j)·j·p over j > N-k is the number of slots freed,
a(k) = k + overshoot, and sum of u(j)·t(j) is the time it takes. A prefill emits the first token of
a requests, which saves a/N of a decode step with N active.
"""

import numpy as np

from pdswitch.theory._chain import binomial_rows, decay
from pdswitch.theory.closed_form import first_argmax
from pdswitch.theory.context import decode_table, is_affine
from pdswitch.theory.curves import DecodeCurve, FloatArray, PrefillCurve, StepCurves
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import check_not_negative, check_probability, check_slots


def expected_refill(n_slots: int, termination_probability: float) -> FloatArray:
    """Return a(k), the mean number of slots refilled at once, for k = 1..N.

    For k·p << 1 it is k + (N-k)·p/2, the published approximation of the overshoot.

    Returns:
        Requests, array of length N, index k-1.
    """
    steps = _steps_from_full(n_slots, termination_probability)
    j = np.arange(n_slots, 0, -1)
    return np.minimum(np.cumsum(steps[j] * j * termination_probability), n_slots)


def corrected_throughput(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes | StepCurves,
    mean_prompt_tokens: float,
) -> FloatArray:
    """Return X(k) for k = 1..N with overshoot and with the first tokens that prefill emits.

    O(N·w), w the number of requests that may end in one step. How close to `exact_throughput`
    it is, and where not, stands in docs/theory.md.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        step_times: linear times, or any pair of curves.
        mean_prompt_tokens: mean prompt length, tokens.

    Returns:
        Array of length N, requests per second; index k-1.

    Raises:
        ValueError: for arguments outside their range, or if a cycle takes no time.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    check_not_negative("mean_prompt_tokens", mean_prompt_tokens)
    curves = step_times.curves if isinstance(step_times, StepTimes) else step_times
    refilled = expected_refill(n_slots, p)
    steps = _steps_from_full(n_slots, p)[:0:-1]
    if is_affine(curves.decode):
        table, per_completion = decode_table(curves.decode, n_slots, 1, p, mean_prompt_tokens)
        decode = np.cumsum(steps * table[:0:-1]) + refilled * per_completion
        full = np.full(n_slots, table[n_slots])
    else:
        decode = np.empty(n_slots)
        full = np.empty(n_slots)
        for k in range(1, n_slots + 1):
            table, _ = decode_table(curves.decode, n_slots, k, p, mean_prompt_tokens)
            decode[k - 1] = steps[:k] @ table[: n_slots - k : -1]
            full[k - 1] = table[n_slots]
    decode = np.maximum(decode - refilled / n_slots * full, 0.0)
    cycle = curves.prefill(refilled * mean_prompt_tokens) + decode
    if not (cycle > 0.0).all():
        raise ValueError("a cycle takes no time at all; give step times that are not all 0")
    return np.asarray(refilled / cycle)


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
        ValueError: for arguments outside their range.
    """
    throughput = corrected_throughput(
        n_slots, termination_probability, StepCurves(prefill, decode), mean_prompt_tokens
    )
    return first_argmax(throughput), throughput


def _steps_from_full(n_slots: int, p: float) -> FloatArray:
    """Return u(j), expected decode steps with j active from N until none is left; index j."""
    if p == 1.0:
        return np.concatenate((np.zeros(n_slots), [1.0]))
    flow = np.zeros(n_slots + 1)
    flow[n_slots] = 1.0
    return decay(flow, 1, p, *binomial_rows(n_slots, p))
