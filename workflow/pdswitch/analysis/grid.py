"""Which thresholds are measured."""

import math

SMALL_N = 32


def k_grid(wanted: str | list[int], n_slots: int, k_star: int | None = None) -> list[int]:
    """Return the thresholds to measure, ascending; k* is always among them.

    Args:
        wanted: ``reference`` (N ≤ 32: odd k, k*, 1 and N; larger N: every second k in
            [k*/2, 2k*], every fifth outside, k*, 1 and N), ``coarse`` (1, N/4, N/2, N and k*),
            ``all``, or a list.
        n_slots: N.
        k_star: from the closed form; None where it is not known yet, which gives the thresholds
            that are measured whatever k* is.
    """
    if isinstance(wanted, list):
        chosen = set(wanted)
    elif wanted == "all":
        chosen = set(range(1, n_slots + 1))
    elif wanted == "coarse":
        chosen = {1, math.ceil(n_slots / 4), math.ceil(n_slots / 2), n_slots}
    elif n_slots <= SMALL_N:
        chosen = {*range(1, n_slots + 1, 2), n_slots}
    elif k_star is None:
        chosen = {1, n_slots}
    else:
        low, high = max(1, k_star // 2), min(n_slots, 2 * k_star)
        near = set(range(low, high + 1, 2))
        far = {k for k in range(5, n_slots + 1, 5) if not low <= k <= high}
        chosen = {*near, *far, 1, n_slots}
    return sorted(chosen | ({k_star} if k_star is not None else set()))
