"""One over the mean length."""

import math

from numpy.typing import ArrayLike

from pdswitch.estimation.lengths import Estimate, check_lengths

PLACE = 1


def estimate(lengths: ArrayLike) -> Estimate:
    """Return p = 1 / mean length, every length taken as complete.

    Bias p(1-p)/n to first order for geometric lengths (1/x is convex). Standard error by the delta
    method from the sample's own spread, s / (mean²·sqrt(n)); for one request, where there is no
    spread, that of the geometric law, p·sqrt(1-p).

    Args:
        lengths: output lengths, tokens.

    Raises:
        InputError: for no lengths, or a length below 1.
    """
    length = check_lengths(lengths)
    p = 1.0 / float(length.mean())
    if length.size > 1:
        error = p**2 * float(length.std(ddof=1)) / math.sqrt(length.size)
    else:
        error = p * math.sqrt(1.0 - p)
    return Estimate(p, error, "mean", length.size)
