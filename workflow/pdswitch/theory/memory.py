"""How many slots a KV budget holds: N* with its optimal threshold, as a joint fixed point."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

from pdswitch.theory.closed_form import optimal_threshold
from pdswitch.theory.context import refill_age
from pdswitch.theory.validation import check_not_negative, check_positive, check_probability

Bound = Literal["normal", "published"]


@dataclass(frozen=True)
class MemorySafeSlots:
    """The slots a KV budget holds.

    Attributes:
        n_slots: N*, safe with the tolerated probability.
        threshold: k* at N*.
        n_expected: slots if only the mean peak had to fit.
        n_static: slots if only the mean need just after a refill had to fit.
        theta: k*/N*.
        mean_request_tokens: m, mean KV need of a slot just after a refill.
        kappa: mean excess of a cycle's peak over the need at its start, tokens.
        margin_tokens: kept free for the spread and the peak at N*.
        budget_tokens: C.
        utilisation: mean need just after a refill at N*, as a part of the budget.
        bound: which rule made the margin.
    """

    n_slots: int
    threshold: int
    n_expected: int
    n_static: int
    theta: float
    mean_request_tokens: float
    kappa: float
    margin_tokens: float
    budget_tokens: float
    utilisation: float
    bound: Bound


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
    """Return N*."""
    budget = check_positive("budget_tokens", budget_tokens)
    p = check_probability(termination_probability)
    prompt = check_positive("mean_prompt_tokens", mean_prompt_tokens)
    variance = check_not_negative("variance_prompt_tokens", variance_prompt_tokens)
    if not 0.0 < oom_tolerance < 1.0:
        raise ValueError(f"oom_tolerance must be in (0, 1), got {oom_tolerance}")
    if bound not in get_args(Bound):
        raise ValueError(f"bound must be normal or published, got {bound!r}")
    kappa = 1.0 / (p * p * prompt)
    z = NormalDist().inv_cdf(1.0 - oom_tolerance)

    def need(n: int) -> float:
        theta = optimal_threshold(n, p, alpha_p, alpha_d) / n
        return n * (prompt + refill_age(theta, p))

    def margin(n: int) -> float:
        if bound == "published":
            return kappa * math.log(1.0 / oom_tolerance)
        return kappa + z * math.sqrt(n * (variance + 1.0 / p**2))

    def largest(extra: float, with_margin: bool) -> int:
        low, high = 0, 1
        def fits(n: int) -> bool:
            return need(n) + (margin(n) if with_margin else extra) <= budget
        while fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    n_slots = largest(0.0, True)
    if n_slots == 0:
        raise ValueError(
            f"a KV budget of {budget:.0f} tokens holds no request safely: one needs "
            f"{need(1) + margin(1):.0f}; give more memory or shorter prompts"
        )
    k = optimal_threshold(n_slots, p, alpha_p, alpha_d)
    theta = k / n_slots
    m = prompt + refill_age(theta, p)
    return MemorySafeSlots(
        n_slots, k, largest(kappa, False), largest(0.0, False), theta, m, kappa,
        margin(n_slots), budget, n_slots * m / budget, bound,
    )
