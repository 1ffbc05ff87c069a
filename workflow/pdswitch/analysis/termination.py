"""What the natural output lengths say: the content of `termination.json`."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.estimation.catalogue import estimate_by, estimator_names
from pdswitch.estimation.lengths import Estimate, NoEndError
from pdswitch.estimation.survival import geometric_ks_distance, hazard


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
    return {name: _estimate(name, lengths, cut, smoothing) for name in estimator_names()}


def _estimate(
    name: str, lengths: NDArray[np.int64], cut: NDArray[np.bool_], smoothing: float
) -> Estimate:
    try:
        return estimate_by(name, lengths, cut, smoothing)
    except NoEndError:
        # The likelihood is largest at p = 0, and its error is unknown.
        return Estimate(0.0, float("nan"), name, lengths.size)


def _by_name(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"p": estimate.termination_probability, "se": estimate.standard_error}
        for name, estimate in estimates.items()
    }
