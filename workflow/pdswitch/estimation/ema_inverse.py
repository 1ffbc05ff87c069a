"""A moving average of 1/L, as the reference document writes it; biased upward."""

from numpy.typing import ArrayLike

from pdswitch.estimation.lengths import Estimate, check_lengths
from pdswitch.estimation.moving_average import moving_average

PLACE = 3


def estimate(lengths: ArrayLike, smoothing: float) -> Estimate:
    """Return the moving average p <- a/L + (1-a)·p, as the reference document writes it.

    It starts at 1/L of the first request. Stationary mean E[1/L] = p·ln(1/p)/(1-p) for geometric
    lengths, not p: biased upward by a factor of about ln(1/p) (4.9 at p = 1/128), at any a.
    Stationary variance a/(2-a)·Var(1/L), E[1/L²] = p/(1-p)·Li2(1-p). See `moments`.
    The standard error is that of the weighted mean of 1/L; it does not contain the bias.

    Args:
        lengths: output lengths in the order of completion, tokens.
        smoothing: a, weight of the newest observation, in (0, 1].

    Raises:
        InputError: for no lengths, a length below 1, or a smoothing outside its range.
    """
    length = check_lengths(lengths)
    p, error = moving_average(1.0 / length, smoothing)
    return Estimate(p, error, "ema_inverse", length.size)
