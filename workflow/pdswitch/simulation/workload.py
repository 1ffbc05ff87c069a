"""Requests to simulate: lengths and arrivals."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError
from pdswitch.theory.curves import FloatArray
from pdswitch.theory.validation import check_positive, check_probability

IntArray = NDArray[np.int64]


def geometric_lengths(termination_probability: float, count: int, seed: int) -> IntArray:
    """Return geometric output lengths, tokens, on 1, 2, ... with mean 1/p.

    Raises:
        InputError: if the probability is outside (0, 1].
    """
    p = check_probability(termination_probability)
    return np.random.default_rng(seed).geometric(p, count).astype(np.int64)


def resampled(values: ArrayLike, count: int, seed: int) -> IntArray:
    """Return `count` draws with replacement from observed lengths, tokens.

    Raises:
        InputError: if nothing was observed.
    """
    observed = np.asarray(values, dtype=np.int64)
    if observed.size == 0:
        raise InputError("there are no observed lengths to draw from; give at least one")
    return np.random.default_rng(seed).choice(observed, count)


def poisson_arrivals(rate: float, count: int, seed: int) -> FloatArray:
    """Return the arrival times of a Poisson process, seconds, at `rate` requests per second.

    Raises:
        InputError: if the rate is not positive.
    """
    check_positive("rate", rate)
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))
