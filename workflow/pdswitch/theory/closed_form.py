"""The optimal threshold in closed form, and the throughput it maximises.

A decode step with j active requests lasts alpha_d + beta_d·j and ends j·p of them on average, so
a completion costs tau(j) = (alpha_d + beta_d·j) / (j·p) seconds. A cycle that refills k slots
lasts alpha_p + beta_p·k·L + tau(N) + ... + tau(N-k+1); X(k) is k over that time.
"""

import numpy as np
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.theory.curves import FloatArray
from pdswitch.theory.step_times import StepTimes
from pdswitch.theory.validation import (
    PerCompletion,
    check_not_negative,
    check_per_completion,
    check_probability,
    check_slots,
)


def harmonic_gain(n_slots: int) -> FloatArray:
    """Return g(k) = k/(N-k) - (H_N - H_{N-k}) for k = 1..N-1, ascending.

    k* is the smallest k with g(k) >= p·alpha_p/alpha_d, or N where there is none. The sum of the
    increments i / ((N-i)(N-i+1)) is used: it has no cancellation.
    """
    i = np.arange(1.0, check_slots(n_slots))
    return np.cumsum(i / ((n_slots - i) * (n_slots - i + 1.0)))


def optimal_threshold(
    n_slots: int,
    termination_probability: float,
    alpha_p: float,
    alpha_d: float,
    beta_d: float = 0.0,
    per_completion: PerCompletion = "expected",
) -> int:
    """Return k*, the smallest k with k·tau(N-k) - sum of tau(j) over j = N-k+1..N >= alpha_p.

    O(N). With ``expected``, beta_d cancels and k* maximises `predicted_throughput`; of several
    equal optima it is the smallest. beta_p and the prompt length never matter.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        alpha_p: fixed time of a prefill step, seconds.
        alpha_d: fixed time of a decode step, seconds.
        beta_d: decode time per active request, seconds; only ``single_exit`` depends on it.
        per_completion: ``expected`` divides a step's time by the j·p requests it ends on average,
            ``single_exit`` by the chance 1-(1-p)^j of at least one, as the published reference.

    Returns:
        k* in 1..N.

    Raises:
        InputError: for arguments outside their range.

    Source: Proposition 1 of the switching-policy paper; derivation in docs/theory.md.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    check_not_negative("alpha_p", alpha_p)
    check_not_negative("alpha_d", alpha_d)
    check_not_negative("beta_d", beta_d)
    check_per_completion(per_completion)
    if per_completion == "expected":
        reached = alpha_d * harmonic_gain(n_slots) >= p * alpha_p
    else:
        tau = time_per_completion(n_slots, p, alpha_d, beta_d, per_completion)[::-1]
        i = np.arange(1, n_slots)
        reached = np.cumsum(i * np.diff(tau)) >= alpha_p
    # tau(0) is infinite: at k = N the condition always holds.
    return int(np.argmax(reached)) + 1 if reached.any() else n_slots


def time_per_completion(
    n_slots: int,
    termination_probability: float,
    alpha_d: float,
    beta_d: float,
    per_completion: PerCompletion = "expected",
) -> FloatArray:
    """Return tau(j) for j = 1..N, in seconds per completion; index j-1."""
    p = termination_probability
    j = np.arange(1.0, n_slots + 1.0)
    if per_completion == "expected":
        endings = j * p
    else:
        with np.errstate(divide="ignore"):
            endings = -np.expm1(j * np.log1p(-p))
    return np.asarray((alpha_d + beta_d * j) / endings)


def predicted_throughput(
    n_slots: int,
    termination_probability: float,
    step_times: StepTimes,
    mean_prompt_tokens: float,
    per_completion: PerCompletion = "expected",
) -> FloatArray:
    """Return X(k) for k = 1..N: completed requests per second predicted by the closed form.

    Args:
        n_slots: N, slots.
        termination_probability: p, per token, in (0, 1].
        step_times: the linear step times.
        mean_prompt_tokens: mean prompt length, tokens.
        per_completion: see `optimal_threshold`.

    Returns:
        Array of length N, requests per second; index k-1.

    Raises:
        InputError: for arguments outside their range.
    """
    check_slots(n_slots)
    p = check_probability(termination_probability)
    check_not_negative("mean_prompt_tokens", mean_prompt_tokens)
    check_per_completion(per_completion)
    tau = time_per_completion(n_slots, p, step_times.alpha_d, step_times.beta_d, per_completion)
    k = np.arange(1.0, n_slots + 1.0)
    refill = step_times.alpha_p + step_times.beta_p * k * mean_prompt_tokens
    cycle = refill + np.cumsum(tau[::-1])
    if cycle[0] <= 0.0:
        raise InputError(
            "with these step times a cycle takes no time at all; give a positive prefill time"
        )
    return k / cycle


def first_argmax(values: FloatArray, relative_tolerance: float = 1e-12) -> int:
    """Return the threshold (index + 1) of the maximum; of equal ones the smallest."""
    best: NDArray[np.bool_] = values >= values.max() * (1.0 - relative_tolerance)
    return int(np.argmax(best)) + 1
