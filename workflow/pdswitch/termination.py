"""What the natural output lengths say: the content of `termination.json`."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from pdswitch.estimation import (
    Estimate,
    estimate_all,
    geometric_ks_distance,
    hazard_by_age,
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
    """
    lengths = requests["output_tokens"].to_numpy(np.int64)
    cut = requests["truncated"].to_numpy(bool)
    offline = estimate_all(lengths[:n_offline], cut[:n_offline], smoothing)
    chosen = offline[estimator]
    return {
        "n": len(requests),
        "n_offline": min(n_offline, len(requests)),
        "method": estimator,
        "termination_probability": chosen.termination_probability,
        "standard_error": chosen.standard_error,
        "estimates": _by_name(offline),
        "all_requests": _by_name(estimate_all(lengths, cut, smoothing)),
        "mean_output_tokens": lengths.mean(),
        "std_output_tokens": lengths.std(),
        "cv": lengths.std() / lengths.mean(),
        "truncated": int(cut.sum()),
        "degenerate": int(requests["degenerate"].sum()),
        "geometric_ks_distance": geometric_ks_distance(lengths, cut),
        "hazard": asdict(hazard_by_age(lengths, cut)),
        "mean_prompt_tokens": requests["prompt_tokens"].mean(),
        "min_prompt_tokens": int(requests["prompt_tokens"].min()),
    }


def _by_name(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"p": estimate.termination_probability, "se": estimate.standard_error}
        for name, estimate in estimates.items()
    }
