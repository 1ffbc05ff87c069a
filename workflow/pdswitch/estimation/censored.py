"""Completions over tokens generated: the maximum-likelihood estimate under censoring."""

import math

from numpy.typing import ArrayLike

from pdswitch.estimation.lengths import Estimate, NoEndError, check_censored

PLACE = 2


def estimate(lengths: ArrayLike, censored: ArrayLike) -> Estimate:
    """Return p = completions / tokens generated, the maximum-likelihood estimate under censoring.

    Each token is one trial, so that the estimate stays right however many requests are cut.
    Relative bias for d completions, cut at M tokens, q = 1-p and F = 1-q^M:
    q/d·(1 - M·p·q^(M-1)/F), which is (1-p)/d without a cut and vanishes where nearly all are cut
    (the number of trials is then fixed). Standard error p·sqrt((1-p)/d).

    Args:
        lengths: tokens generated, to the end or to the cut.
        censored: True where the request was cut at the token limit.

    Raises:
        InputError: for no lengths, or a length below 1.
        NoEndError: if every request was cut.
    """
    length, cut = check_censored(lengths, censored)
    completions = int((~cut).sum())
    if completions == 0:
        raise NoEndError(
            f"all {length.size} requests were cut at the token limit, so that p is unknown; "
            "raise max_output_tokens"
        )
    p = completions / float(length.sum())
    return Estimate(p, p * math.sqrt((1.0 - p) / completions), "censored", length.size)
