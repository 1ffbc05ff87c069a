"""KV tokens held while decoding, and what they cost.

A request of l tokens decodes in l-1 steps and holds its prompt and the tokens computed so far.
If a step's time is affine in the tokens held, their cost per completed request is the same under
every threshold (each request brings its own), so that it cannot move k*.
"""

import numpy as np

from pdswitch.theory.curves import DecodeCurve, FloatArray


def context_per_completion(termination_probability: float, mean_prompt_tokens: float) -> float:
    """Return the KV tokens a request holds, summed over its decode steps, on average.

    With m = l-1 decode steps: E[m]·L + E[m(m-1)]/2, geometric lengths, q = 1-p:
    (q/p)·L + (q/p)².
    """
    steps = (1.0 - termination_probability) / termination_probability
    return steps * (mean_prompt_tokens + steps)


def mean_context(
    n_slots: int, threshold: int, termination_probability: float, mean_prompt_tokens: float
) -> FloatArray:
    """Return the mean KV tokens held in a cycle of threshold k while j = 1..N are active.

    Fluid limit. Decoding from N to j takes ln(N/j)/p steps. Ages do not change who ends, so the
    mean age just after a refill, A, satisfies A = (1-theta)(A + s), s = ln(1/(1-theta))/p being
    the steps of a cycle and theta = k/N.

    Returns:
        Tokens, array of length N, index j-1.
    """
    j = np.arange(1.0, n_slots + 1.0)
    age = refill_age(threshold / n_slots, termination_probability)
    return j * (mean_prompt_tokens + age + np.log(n_slots / j) / termination_probability)


def refill_age(theta: float, termination_probability: float) -> float:
    """Return the mean age of the requests in slots just after a refill of theta·N, in tokens."""
    if theta >= 1.0:
        return 0.0
    return (1.0 - theta) / (theta * termination_probability) * float(-np.log1p(-theta))


def decode_table(
    decode: DecodeCurve,
    n_slots: int,
    threshold: int,
    termination_probability: float,
    mean_prompt_tokens: float,
) -> tuple[FloatArray, float]:
    """Return what decoding costs: seconds of a step with j active, and seconds per completion.

    A curve with a `context_slope` is affine in the context: its context costs are given per
    completion, which is exact. Any other curve is taken at the mean context of the threshold.

    Returns:
        Array of length N + 1, index j (0 at j = 0), and seconds per completed request.
    """
    j = np.arange(1.0, n_slots + 1.0)
    slope = getattr(decode, "context_slope", None)
    if slope is None:
        context = mean_context(n_slots, threshold, termination_probability, mean_prompt_tokens)
        return np.concatenate(([0.0], decode(j, context))), 0.0
    held = context_per_completion(termination_probability, mean_prompt_tokens)
    # At a vanishing p a request holds infinitely much, which without a slope costs nothing.
    per_completion = float(slope * held) if slope else 0.0
    return np.concatenate(([0.0], decode(j, 0.0))), per_completion


def is_affine(decode: DecodeCurve) -> bool:
    """Say whether the decode curve does not need the context of each threshold."""
    return getattr(decode, "context_slope", None) is not None
