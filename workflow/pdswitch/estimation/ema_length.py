"""One over a moving average of the length."""

from numpy.typing import ArrayLike

from pdswitch.estimation.lengths import Estimate, check_lengths
from pdswitch.estimation.moving_average import moving_average

PLACE = 4


def estimate(lengths: ArrayLike, smoothing: float) -> Estimate:
    """Return 1/M for the moving average of the length M <- a·L + (1-a)·M.

    It starts at the first length. Stationary: E[M] = 1/p, Var M = v/p² with
    v = a/(2-a)·(1-p), hence E[1/M] = p·(1+v) and Var(1/M) = p²·v to lowest order: the bias
    vanishes with a, and is 19 % at a = 0.3 and small p. Exact values: `moments`.
    Standard error by the delta method.

    Args:
        lengths: output lengths in the order of completion, tokens.
        smoothing: a, weight of the newest observation, in (0, 1].

    Raises:
        InputError: for no lengths, a length below 1, or a smoothing outside its range.
    """
    length = check_lengths(lengths)
    mean, error = moving_average(length.astype(float), smoothing)
    return Estimate(1.0 / mean, error / mean**2, "ema_length", length.size)
