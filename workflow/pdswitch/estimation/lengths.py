"""Output lengths as every estimator takes them, and the estimate that it gives back.

Lengths are counted in tokens, the ending one included; a request that was cut at the token limit is
censored: it made as many trials as it has tokens, and none of them ended it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdswitch.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class NoEndError(InputError):
    """No request was seen to end by itself, so that the estimator has nothing to go by."""


@dataclass(frozen=True)
class Estimate:
    """An estimate of the termination probability.

    Attributes:
        termination_probability: p, per token.
        standard_error: of p.
        method: name of the estimator.
        n: requests it rests on.
    """

    termination_probability: float
    standard_error: float
    method: str
    n: int


def check_lengths(lengths: ArrayLike) -> IntArray:
    """Return the lengths as an array of whole tokens.

    Raises:
        InputError: for no lengths, or one below 1.
    """
    values = np.asarray(lengths)
    if values.ndim != 1 or values.size == 0:
        raise InputError("lengths must be a list of at least one output length, got none")
    if not (
        np.isfinite(values).all() and (values >= 1).all() and (values == np.rint(values)).all()
    ):
        raise InputError(
            "every length must be a whole number of at least 1 token; "
            "leave out requests that generated nothing"
        )
    return values.astype(np.int64)


def check_censored(lengths: ArrayLike, censored: ArrayLike | None) -> tuple[IntArray, BoolArray]:
    """Return lengths and cuts as arrays of equal length; without cuts none was cut.

    Raises:
        InputError: for no lengths, a length below 1, or another number of cuts.
    """
    length = check_lengths(lengths)
    if censored is None:
        return length, np.zeros(length.size, dtype=np.bool_)
    cut = np.asarray(censored, dtype=np.bool_)
    if cut.shape != length.shape:
        raise InputError(
            f"censored must have one value per length, got {cut.size} for {length.size} lengths"
        )
    return length, cut
