"""What the natural output lengths say: the content of `termination.json`."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.estimation.estimators import (
    Estimate,
    estimate_censored,
    estimate_ema_inverse,
    estimate_ema_length,
    estimate_mean,
    geometric_ks_distance,
    hazard,
)


def summarise_lengths(
    requests: pd.DataFrame, n_offline: int, estimator: str, smoothing: float
) -> dict[str, Any]:
    """Summarise the termination run.

    Args:
        requests: columns prompt_tokens, output_tokens, truncated, degenerate; in prompt order.
        n_offline: p is estimated from the first so many.
        estimator: the estimate k* is computed with.
        smoothing: of the exponential moving averages.

    Raises:
        InputError: if the estimator cannot work with these lengths.
    """
    lengths = requests["output_tokens"].to_numpy(np.int64)
    cut = requests["truncated"].to_numpy(bool)
    offline = _estimates(lengths[:n_offline], cut[:n_offline], smoothing)
    chosen = offline[estimator]
    if chosen.termination_probability == 0:
        raise InputError(
            f"all {n_offline} answers reached max_output_tokens, so that the estimator {estimator} "
            "has nothing to go by; raise max_output_tokens, or use offline_p_estimator: mean"
        )
    return {
        "n": len(requests),
        "n_offline": min(n_offline, len(requests)),
        "method": estimator,
        "termination_probability": chosen.termination_probability,
        "standard_error": chosen.standard_error,
        "estimates": _by_name(offline),
        "all_requests": _by_name(_estimates(lengths, cut, smoothing)),
        "mean_output_tokens": lengths.mean(),
        "std_output_tokens": lengths.std(),
        "cv": lengths.std() / lengths.mean(),
        "truncated": int(cut.sum()),
        "degenerate": int(requests["degenerate"].sum()),
        # The distance needs an end that was seen.
        "geometric_ks_distance": None if cut.all() else geometric_ks_distance(lengths, cut),
        "hazard": asdict(hazard(lengths, cut)),
        "mean_prompt_tokens": requests["prompt_tokens"].mean(),
        "std_prompt_tokens": requests["prompt_tokens"].std(ddof=0),
        "min_prompt_tokens": int(requests["prompt_tokens"].min()),
    }


def _estimates(
    lengths: NDArray[np.int64], cut: NDArray[np.bool_], smoothing: float
) -> dict[str, Estimate]:
    # With no end seen at all, the likelihood is largest at p = 0, and its error is unknown.
    no_end = Estimate(0.0, float("nan"), "censored", lengths.size)
    return {
        "mean": estimate_mean(lengths),
        "censored": no_end if cut.all() else estimate_censored(lengths, cut),
        "ema_inverse": estimate_ema_inverse(lengths, smoothing),
        "ema_length": estimate_ema_length(lengths, smoothing),
    }


def _by_name(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"p": estimate.termination_probability, "se": estimate.standard_error}
        for name, estimate in estimates.items()
    }
