"""How many KV tokens a cycle needs at its peak, with a given certainty.

Just after a refill the requests in N slots hold their prompts and the tokens they have made. Their
ages come from a common history: in each cycle the survivors age by the same number of steps, and
who survives is chosen by lot, whatever the age. That gives the moments in closed form. Within the
cycle the need rises by a token per request and step and falls when a request ends; the peak lies
above the need at the start by the highest point of that walk.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pdswitch.theory._chain import binomial_rows, decay
from pdswitch.theory.curves import FloatArray

# The quantiles below are good to a few tenths of a per cent of the budget; they are taken at a
# smaller probability, so that what is left of the error is on the safe side.
WALK_SHARE = 0.8
# A peak anywhere along a slowly moving path is likelier than at its highest point, at most twice
# (Levy's inequality) plus the skewness that is left out.
PATH_SHARE = 1.0 / 3.0
PATH_POINTS = 97


@dataclass(frozen=True)
class RefillNeed:
    """KV tokens held just after a refill of the stationary regime.

    Attributes:
        refilled: mean slots refilled at once.
        steps: mean decode steps of a cycle.
        steps_variance: their variance.
        mean: tokens held, all slots together.
        variance: of the same.
        slot_variance: of the tokens one slot holds.
        third_moment: third central moment of the tokens held.
    """

    refilled: float
    steps: float
    steps_variance: float
    mean: float
    variance: float
    slot_variance: float
    third_moment: float


def refill_need(
    n_slots: int,
    threshold: int,
    termination_probability: float,
    mean_prompt_tokens: float,
    variance_prompt_tokens: float,
) -> RefillNeed:
    """Return the moments of the KV need just after a refill.

    With f slots refilled, s = p·f of them free again at once, n decode steps in a cycle and the
    survival r = (N-f)/(N-s), the sum G of the ages of the M = N-s decoding requests and the sum Q
    of their squares solve
    E G = r(E G + M·E n), E Q = r(E Q + 2·E n·E G + M·E n²),
    E G² = (r-r2)(E Q + 2·E n·E G + M·E n²) + r2(E G² + 2·M·E n·E G + M²·E n²),
    r2 = r(N-f-1)/(M-1) being the chance that two survive. Prompts are independent of ages, and
    taken as gamma-shaped for the third moment.

    Args:
        n_slots: N, slots.
        threshold: k.
        termination_probability: p, per token, in (0, 1].
        mean_prompt_tokens: mean prompt length, tokens.
        variance_prompt_tokens: variance of the prompt length, tokens squared.
    """
    p = termination_probability
    if p == 1.0:
        refilled, steps, steps_variance = float(n_slots), 0.0, 0.0
    else:
        flow = np.zeros(n_slots + 1)
        flow[n_slots] = 1.0
        made = decay(flow, n_slots - threshold + 1, p, *binomial_rows(n_slots, p))
        j = np.arange(n_slots + 1.0)
        refilled = min(float(made @ j) * p, float(n_slots))
        # The prefill gives the refilled requests a token that a decode step would have given.
        steps = float(made.sum()) - refilled / n_slots
        steps_variance = float((1.0 / (j[n_slots - threshold + 1 :] * p) ** 2).sum())
    ages, ages_variance, slot_ages_variance = _age_moments(
        n_slots, refilled, p * refilled, steps, steps_variance
    )
    third_of_prompt = 2.0 * variance_prompt_tokens**2 / mean_prompt_tokens
    return RefillNeed(
        refilled=refilled,
        steps=steps,
        steps_variance=steps_variance,
        mean=n_slots * mean_prompt_tokens + ages,
        variance=n_slots * variance_prompt_tokens + ages_variance,
        slot_variance=variance_prompt_tokens + slot_ages_variance,
        # Ages are nearly exponential: third moment 2·sigma³.
        third_moment=n_slots * (third_of_prompt + 2.0 * slot_ages_variance**1.5),
    )


def _age_moments(
    n_slots: int, refilled: float, ended: float, steps: float, steps_variance: float
) -> tuple[float, float, float]:
    """Return mean and variance of the sum of the ages, and the variance of one age."""
    left = n_slots - refilled
    if left < 1e-9 or steps == 0.0:
        return 0.0, 0.0, 0.0
    m = n_slots - ended
    survive = left / m
    survive_two = survive * max(left - 1.0, 0.0) / max(m - 1.0, 1.0)
    square = steps**2 + steps_variance
    total = m * steps * survive / (1.0 - survive)
    aged = 2.0 * steps * total + m * square
    squares = survive * aged / (1.0 - survive)
    aged += squares
    together = 2.0 * m * steps * total + m**2 * square
    total_square = ((survive - survive_two) * aged + survive_two * together) / (1.0 - survive_two)
    one = squares / n_slots - (total / n_slots) ** 2
    return total, max(total_square - total**2, 0.0), max(one, 0.0)


def walk_excess(need: RefillNeed, n_slots: int, p: float) -> float:
    """Return the mean height of a cycle's peak above the need at its start, in tokens.

    Counted in completions: between two of them the need rises by about 1/p on average (all slots
    decode for 1/(N·p) steps), and each one takes a slot's tokens away. Spitzer's identity gives
    the mean maximum of that walk, with normal sums.
    """
    if p == 1.0:
        return 0.0
    drift = 1.0 / p - need.mean / n_slots
    spread = math.sqrt(1.0 / p**2 + need.slot_variance)
    i = np.arange(1.0, max(round(need.refilled), 1))
    at = drift * np.sqrt(i) / spread
    positive_part = spread * np.sqrt(i) * _normal_density(at) + drift * i * _normal_below(at)
    return _first_rise(n_slots, p) + float((positive_part / i).sum())


def _first_rise(n_slots: int, p: float) -> float:
    """Return the tokens gained until the first completion: one for every slot and step."""
    return n_slots / -math.expm1(n_slots * math.log1p(-p))


def peak_need(
    n_slots: int,
    threshold: int,
    termination_probability: float,
    mean_prompt_tokens: float,
    variance_prompt_tokens: float,
    tolerance: float,
) -> float:
    """Return KV tokens that a cycle's peak exceeds with a probability of at most `tolerance`.

    The smaller of two bounds, both with Cornish-Fisher quantiles (skewness): the need at the start
    plus the walk's excess, right where a slot holds more than 1/p tokens so that the need falls;
    and the highest quantile along the mean path N·q^t·(m + t + 1), right where it first rises.

    Args:
        n_slots: N, slots.
        threshold: k.
        termination_probability: p, per token, in (0, 1].
        mean_prompt_tokens: mean prompt length, tokens.
        variance_prompt_tokens: variance of the prompt length, tokens squared.
        tolerance: probability that the peak of a cycle is higher, in (0, 1).
    """
    p = termination_probability
    need = refill_need(n_slots, threshold, p, mean_prompt_tokens, variance_prompt_tokens)
    excess = walk_excess(need, n_slots, p)
    # The excess of a falling walk is exponential: variance mean², third moment 2·mean³.
    by_walk = _quantile(
        np.array(need.mean + excess),
        np.array(need.variance + excess**2),
        np.array(need.third_moment + 2.0 * excess**3),
        WALK_SHARE * tolerance,
    )
    if p == 1.0:
        return float(by_walk)
    t = np.linspace(0.0, need.steps + math.sqrt(need.steps_variance), PATH_POINTS)
    q = np.exp(t * math.log1p(-p))
    held = need.mean / n_slots + t
    lots = n_slots * q * (1.0 - q)
    path = _quantile(
        n_slots * q * (held + 1.0),
        q**2 * need.variance + lots * (need.slot_variance + held**2),
        q**3 * need.third_moment + lots * (1.0 - 2.0 * q) * held**3,
        PATH_SHARE * tolerance,
    )
    # The path counts the first step's tokens already.
    by_path = float(path.max()) + _first_rise(n_slots, p) - n_slots
    return min(float(by_walk), by_path)


def _quantile(
    mean: FloatArray, variance: FloatArray, third: FloatArray, probability: float
) -> FloatArray:
    """Return the value exceeded with this probability, normal but for its skewness."""
    z = NormalDist().inv_cdf(1.0 - probability)
    deviation = np.sqrt(variance)
    skewness = np.divide(third, deviation**3, out=np.zeros_like(third), where=deviation > 0.0)
    return np.asarray(mean + (z + (z * z - 1.0) * skewness / 6.0) * deviation)


def _normal_density(x: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-x * x / 2.0) / math.sqrt(2.0 * math.pi))


def _normal_below(x: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(ndtr(x))
