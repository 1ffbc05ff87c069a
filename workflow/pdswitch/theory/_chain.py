"""Compiled kernels on the Markov chain of active requests; see `exact` and `overshoot`.

A binomial law is kept as a row: the probabilities above 1e-17 of one count, from its first one on.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NEGLIGIBLE = 1e-17


@numba.njit(cache=True)
def binomial_rows(n: int, p: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the laws of Binomial(j, p) for j = 0..n, 0 < p < 1.

    Returns:
        Start of row j in the values (length n + 2), first count of row j, values one after
        another.
    """
    log_factorial = np.zeros(n + 1)
    for i in range(1, n + 1):
        log_factorial[i] = log_factorial[i - 1] + math.log(i)
    start = np.zeros(n + 2, dtype=np.int64)
    first = np.zeros(n + 1, dtype=np.int64)
    values = np.empty(64 * (n + 1))
    odds = p / (1.0 - p)
    log_p, log_q = math.log(p), math.log1p(-p)
    row = np.empty(n + 1)
    for j in range(n + 1):
        # From the mode outward: no underflow, whatever j and p.
        mode = min(int((j + 1) * p), j)
        row[mode] = math.exp(
            log_factorial[j]
            - log_factorial[mode]
            - log_factorial[j - mode]
            + mode * log_p
            + (j - mode) * log_q
        )
        low = mode
        while low > 0 and row[low] > NEGLIGIBLE:
            row[low - 1] = row[low] * low / ((j - low + 1) * odds)
            low -= 1
        high = mode
        while high < j and row[high] > NEGLIGIBLE:
            row[high + 1] = row[high] * (j - high) / (high + 1) * odds
            high += 1
        length = high - low + 1
        begin = start[j]
        if begin + length > values.size:
            larger = np.empty(2 * (begin + length))
            larger[:begin] = values[:begin]
            values = larger
        total = row[low : high + 1].sum()
        values[begin : begin + length] = row[low : high + 1] / total
        first[j] = low
        start[j + 1] = begin + length
    return start, first, values[: start[n + 1]]


@numba.njit(cache=True)
def decay(
    flow: FloatArray,
    lowest: int,
    p: float,
    start: IntArray,
    first: IntArray,
    values: FloatArray,
) -> FloatArray:
    """Run decode steps, from the active counts in `flow`, until fewer than `lowest` are active.

    Args:
        flow: probability of entering with j active, index j. Changed in place: afterwards the
            law of the first count below `lowest`, and the visits at the counts from `lowest` on.
        lowest: least active count at which a decode step is still made.
        p: chance that one request ends in a step.
        start: see `binomial_rows`.
        first: see `binomial_rows`.
        values: see `binomial_rows`.

    Returns:
        Expected number of decode steps made with j active, index j.
    """
    steps = np.zeros(flow.size)
    log_q = math.log1p(-p)
    for j in range(flow.size - 1, max(lowest, 1) - 1, -1):
        if flow[j] == 0.0:
            continue
        steps[j] = flow[j] / -math.expm1(j * log_q)
        shift = first[j] - start[j]
        for i in range(start[j], start[j + 1]):
            ended = i + shift
            if ended > 0:
                flow[j - ended] += steps[j] * values[i]
    return steps


@numba.njit(cache=True)
def refill_until_full(
    freed: FloatArray,
    threshold: int,
    p: float,
    start: IntArray,
    first: IntArray,
    values: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Refill again and again while the prefill itself ends at least `threshold` requests.

    A refill of f requests leaves Binomial(f, p) slots free again.

    Args:
        freed: probability of refilling f slots first, index f, summing to 1.
        threshold: k.
        p: chance that a request ends with its first token.
        start: see `binomial_rows`.
        first: see `binomial_rows`.
        values: see `binomial_rows`.

    Returns:
        Expected number of refills of f slots, index f, and the law of the slots left free when
        decoding goes on (fewer than `threshold`), index s.
    """
    free = freed.copy()
    refills = np.zeros(free.size)
    log_p = math.log(p)
    for f in range(free.size - 1, 0, -1):
        if free[f] == 0.0 or f < threshold:
            continue
        refills[f] = free[f] / -math.expm1(f * log_p)
        free[f] = 0.0
        shift = first[f] - start[f]
        for i in range(start[f], start[f + 1]):
            left = i + shift
            if left < f:
                free[left] += refills[f] * values[i]
    return refills, free


@numba.njit(cache=True)
def stationary_cycle(
    freed: FloatArray,
    threshold: int,
    p: float,
    start: IntArray,
    first: IntArray,
    values: FloatArray,
    tolerance: float,
    max_rounds: int,
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Iterate refill and decode until the law of the freed slots stands still.

    Args:
        freed: first guess of the law of the slots free when decoding stops, index f.
        threshold: k.
        p: chance that one request ends in a step.
        start: see `binomial_rows`.
        first: see `binomial_rows`.
        values: see `binomial_rows`.
        tolerance: largest change, in the sum of absolute differences, that counts as none.
        max_rounds: most rounds.

    Returns:
        Expected refills of f slots in a cycle, expected decode steps with j active in a cycle,
        the stationary law of the freed slots, and the change in the last round.
    """
    n = freed.size - 1
    change = np.inf
    refills = np.zeros(n + 1)
    steps = np.zeros(n + 1)
    for _ in range(max_rounds):
        refills, free = refill_until_full(freed, threshold, p, start, first, values)
        flow = free[::-1].copy()
        steps = decay(flow, n - threshold + 1, p, start, first, values)
        crossed = np.zeros(n + 1)
        for active in range(n - threshold + 1):
            crossed[n - active] = flow[active]
        change = np.abs(crossed - freed).sum()
        freed = crossed
        if change <= tolerance:
            break
    return refills, steps, freed, change
