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
def decode_level(
    flow: FloatArray,
    j: int,
    log_q: float,
    start: IntArray,
    first: IntArray,
    values: FloatArray,
) -> float:
    """Decode with j active requests until one ends; move the flow at j to the counts it leads to.

    Args:
        flow: probability of coming by each active count, index j. Changed in place.
        j: active count, at least 1.
        log_q: ln(1-p).
        start: see `binomial_rows`.
        first: see `binomial_rows`.
        values: see `binomial_rows`.

    Returns:
        Expected number of decode steps made with j active.
    """
    if flow[j] == 0.0:
        return 0.0
    steps = flow[j] / -math.expm1(j * log_q)
    flow[j] = 0.0
    shift = first[j] - start[j]
    for i in range(start[j], start[j + 1]):
        ended = i + shift
        if ended > 0:
            flow[j - ended] += steps * values[i]
    return steps


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
        flow: probability of beginning with j active, index j. Changed in place: afterwards the
            law of the first count below `lowest`.
        lowest: least active count at which a decode step is still made, at least 1.
        p: chance that one request ends in a step.
        start: see `binomial_rows`.
        first: see `binomial_rows`.
        values: see `binomial_rows`.

    Returns:
        Expected number of decode steps made with j active, index j.
    """
    steps = np.zeros(flow.size)
    log_q = math.log1p(-p)
    for j in range(flow.size - 1, lowest - 1, -1):
        steps[j] = decode_level(flow, j, log_q, start, first, values)
    return steps


@numba.njit(cache=True)
def start_laws(
    refill_seconds: FloatArray,
    steps: FloatArray,
    p: float,
    start: IntArray,
    first: IntArray,
    values: FloatArray,
    rounds: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimate, for every threshold, how many slots are free when a decode phase begins.

    The slots freed by decoding from N active requests have a law that one pass gives for all
    thresholds. Its mean is off, as decoding begins with s < k slots free; each round thins the
    law to that of s, and moves it by what the s change in the mean.

    Args:
        refill_seconds: time of a refill of f slots, index f.
        steps: expected decode steps with j active from N-s active on; row s, index j.
        p: chance that one request ends in a step.
        start: see `binomial_rows`.
        first: see `binomial_rows`.
        values: see `binomial_rows`.
        rounds: at least 1.

    Returns:
        Law of s, row k-1, index s; requests admitted and seconds spent refilling in a cycle,
        index k-1.
    """
    n = refill_seconds.size - 1
    most = steps.shape[0]
    laws = np.zeros((n, most))
    refilled = np.zeros(n)
    seconds = np.zeros(n)
    # Slots that decoding frees on average, from N-s active requests down to N-k.
    freed_from = np.zeros(most)
    flow = np.zeros(n + 1)
    flow[n] = 1.0
    log_q, log_p = math.log1p(-p), math.log(p)
    furthest = 0
    for k in range(1, n + 1):
        j = n - k + 1
        furthest = max(furthest, n - j + first[j] + start[j + 1] - start[j] - 1)
        decode_level(flow, j, log_q, start, first, values)
        freed_from += steps[:, j] * (j * p)
        law = laws[k - 1]
        moved = 0.0
        for _ in range(rounds):
            whole = math.floor(moved)
            part = moved - whole
            law[:] = 0.0
            total = 0.0
            seconds[k - 1] = 0.0
            for f in range(k, furthest + 1):
                # The law is moved by a fraction of a slot by splitting each of its points.
                for extra in range(2):
                    weight = flow[n - f] * (part if extra else 1.0 - part)
                    if weight == 0.0:
                        continue
                    to = min(max(f + whole + extra, k), n)
                    seconds[k - 1] += weight * refill_seconds[to]
                    shift = first[to] - start[to]
                    for i in range(start[to], min(start[to + 1], most - shift)):
                        law[i + shift] += weight * values[i]
            # Where prefill alone ends k or more, the refill goes on.
            for s in range(most - 1, k - 1, -1):
                again = law[s] / -math.expm1(s * log_p)
                law[s] = 0.0
                total += again * s
                seconds[k - 1] += again * refill_seconds[s]
                shift = first[s] - start[s]
                for i in range(start[s], start[s + 1]):
                    left = i + shift
                    if left < s:
                        law[left] += again * values[i]
            mean = 0.0
            for s in range(min(most, k)):
                mean += law[s] * (s + freed_from[s])
            moved = mean - freed_from[0]
            refilled[k - 1] = total + mean
    return laws, refilled, seconds


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
