"""How many slots a KV budget holds: N* with its optimal threshold, as a joint fixed point."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from pdswitch.errors import InputError
from pdswitch.theory.closed_form import optimal_threshold
from pdswitch.theory.context import refill_age
from pdswitch.theory.peak import peak_need, refill_need, walk_excess
from pdswitch.theory.validation import check_not_negative, check_positive, check_probability

Bound = Literal["normal", "published"]


@dataclass(frozen=True)
class MemorySafeSlots:
    """The slots a KV budget holds.

    Attributes:
        n_slots: N*, whose peak need passes the budget with at most the tolerated probability.
        threshold: k* at N*.
        theta: k*/N*.
        n_expected: slots if only the mean need and the mean excess of the peak had to fit.
        n_static: slots if only the mean need just after a refill had to fit.
        mean_request_tokens: m, mean KV tokens of a slot just after a refill at N*.
        kappa: mean excess of a cycle's peak over the need at its start, tokens.
        margin_tokens: budget kept free above the mean need at N*.
        budget_tokens: C.
        utilisation: mean need just after a refill, N*·m, as a part of the budget.
        bound: which rule was used.
    """

    n_slots: int
    threshold: int
    theta: float
    n_expected: int
    n_static: int
    mean_request_tokens: float
    kappa: float
    margin_tokens: float
    budget_tokens: float
    utilisation: float
    bound: Bound


@dataclass(frozen=True)
class _Need:
    """KV tokens that N slots need: on average, in excess of it, and to be safe."""

    threshold: int
    mean: float
    kappa: float
    safe: float


def memory_safe_slots(
    budget_tokens: float,
    termination_probability: float,
    alpha_p: float,
    alpha_d: float,
    mean_prompt_tokens: float,
    variance_prompt_tokens: float = 0.0,
    oom_tolerance: float = 0.05,
    bound: Bound = "normal",
) -> MemorySafeSlots:
    """Return N*, the most slots whose peak KV need stays within a budget, with their k*.

    The need of N slots depends on theta = k*(N)/N and k* on N: the largest N is searched for whose
    own k* keeps it within the budget.

    ``normal``: the peak of a cycle passes the budget with a probability of at most
    `oom_tolerance`; see `pdswitch.theory.peak` for what it rests on.
    ``published``: N·m + kappa·ln(1/oom_tolerance) <= C with kappa = 1/(p²·L) and
    m = L + (1-theta)/(theta·p)·ln(1/(1-theta)). It leaves out the spread of the need; kept for
    comparison.

    Args:
        budget_tokens: C, KV tokens.
        termination_probability: p, per token, in (0, 1].
        alpha_p: fixed time of a prefill step, seconds.
        alpha_d: fixed time of a decode step, seconds.
        mean_prompt_tokens: mean prompt length, tokens.
        variance_prompt_tokens: its variance, tokens squared; not used by ``published``.
        oom_tolerance: epsilon, in (0, 1).
        bound: ``normal`` or ``published``.

    Raises:
        InputError: for arguments outside their range, or a budget that holds no request.
    """
    budget = check_positive("budget_tokens", budget_tokens)
    p = check_probability(termination_probability)
    check_positive("mean_prompt_tokens", mean_prompt_tokens)
    check_not_negative("variance_prompt_tokens", variance_prompt_tokens)
    if not 0.0 < oom_tolerance < 1.0:
        raise InputError(f"oom_tolerance must be in (0, 1), got {oom_tolerance}")
    if bound not in get_args(Bound):
        raise InputError(f"bound must be normal or published, got {bound!r}")

    def need(n: int) -> _Need:
        k = optimal_threshold(n, p, alpha_p, alpha_d)
        if bound == "published":
            mean = n * (mean_prompt_tokens + refill_age(k / n, p))
            kappa = 1.0 / (p * p * mean_prompt_tokens)
            return _Need(k, mean, kappa, mean + kappa * math.log(1.0 / oom_tolerance))
        arguments = (n, k, p, mean_prompt_tokens, variance_prompt_tokens)
        moments = refill_need(*arguments)
        safe = peak_need(*arguments, oom_tolerance)
        return _Need(k, moments.mean, walk_excess(moments, n, p), safe)

    n_slots = _largest(lambda n: need(n).safe <= budget)
    if n_slots == 0:
        raise InputError(
            f"a KV budget of {budget:.0f} tokens holds no request: one needs {need(1).safe:.0f} to "
            "be safe; give more memory, shorter prompts or a larger oom_tolerance"
        )
    chosen = need(n_slots)
    return MemorySafeSlots(
        n_slots=n_slots,
        threshold=chosen.threshold,
        theta=chosen.threshold / n_slots,
        n_expected=_largest(lambda n: need(n).mean + need(n).kappa <= budget),
        n_static=_largest(lambda n: need(n).mean <= budget),
        mean_request_tokens=chosen.mean / n_slots,
        kappa=chosen.kappa,
        margin_tokens=budget - chosen.mean,
        budget_tokens=budget,
        utilisation=chosen.mean / budget,
        bound=bound,
    )


def _largest(fits: Callable[[int], bool]) -> int:
    """Return the largest N that fits, 0 if 1 does not; needs rise with N."""
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
