"""What the natural output lengths say: the content of `termination.json`."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pdswitch.errors import InputError
from pdswitch.estimation.catalogue import estimate_by, estimator_names
from pdswitch.estimation.lengths import Estimate, NoEndError
from pdswitch.estimation.survival import Hazard, geometric_ks_distance, hazard
from pdswitch.stages.result_files import read_result

SCHEMA_VERSION = 1


class OfflineEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one estimator finds.

    Attributes:
        p: termination probability, per token.
        se: its standard error; None where it is unknown.
    """

    p: float
    se: float | None


class HazardCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Chance per token of ending, by age.

    Attributes:
        age: middle of each bin, tokens.
        hazard: endings per token generated at these ages.
        low: lower end of the 95 % interval.
        high: upper end of the same.
    """

    age: list[float]
    hazard: list[float]
    low: list[float]
    high: list[float]


class Termination(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `termination.json`.

    Attributes:
        n: answers of the termination run.
        n_offline: how many of them p is estimated from.
        method: the estimator that k* is computed with.
        termination_probability: its p, per token.
        standard_error: of p.
        estimates: by estimator, from the first `n_offline` answers.
        all_requests: by estimator, from all answers.
        mean_output_tokens: of all answers.
        std_output_tokens: their standard deviation, tokens.
        cv: standard deviation over mean.
        truncated: answers cut at max_output_tokens.
        degenerate: answers that end in a repetition loop.
        geometric_ks_distance: Kolmogorov–Smirnov distance to the geometric law; None if no end was
            seen.
        hazard: chance to end, by age.
        mean_prompt_tokens: of all prompts.
        std_prompt_tokens: their standard deviation, tokens.
        min_prompt_tokens: of the shortest prompt.
        schema_version: of the file.
    """

    n: int
    n_offline: int
    method: str
    termination_probability: float
    standard_error: float
    estimates: dict[str, OfflineEstimate]
    all_requests: dict[str, OfflineEstimate]
    mean_output_tokens: float
    std_output_tokens: float
    cv: float
    truncated: int
    degenerate: int
    geometric_ks_distance: float | None
    hazard: HazardCurve
    mean_prompt_tokens: float
    std_prompt_tokens: float
    min_prompt_tokens: int
    schema_version: int = SCHEMA_VERSION


def read_termination(path: Path) -> Termination:
    """Read `termination.json`.

    Raises:
        InputError: if another version of pdswitch wrote it, or if it is damaged.
    """
    return read_result(path, Termination, SCHEMA_VERSION)


def summarise_lengths(
    requests: pd.DataFrame, n_offline: int, estimator: str, smoothing: float
) -> Termination:
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
    return Termination(
        n=len(requests),
        n_offline=min(n_offline, len(requests)),
        method=estimator,
        termination_probability=float(chosen.termination_probability),
        standard_error=float(chosen.standard_error),
        estimates=_by_name(offline),
        all_requests=_by_name(_estimates(lengths, cut, smoothing)),
        mean_output_tokens=float(lengths.mean()),
        std_output_tokens=float(lengths.std()),
        cv=float(lengths.std() / lengths.mean()),
        truncated=int(cut.sum()),
        degenerate=int(requests["degenerate"].sum()),
        # The distance needs an end that was seen.
        geometric_ks_distance=None if cut.all() else geometric_ks_distance(lengths, cut),
        hazard=_curve(hazard(lengths, cut)),
        mean_prompt_tokens=float(requests["prompt_tokens"].mean()),
        std_prompt_tokens=float(requests["prompt_tokens"].std(ddof=0)),
        min_prompt_tokens=int(requests["prompt_tokens"].min()),
    )


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


def _by_name(estimates: dict[str, Estimate]) -> dict[str, OfflineEstimate]:
    return {
        name: OfflineEstimate(
            p=float(estimate.termination_probability),
            se=None if math.isnan(estimate.standard_error) else float(estimate.standard_error),
        )
        for name, estimate in estimates.items()
    }


def _curve(found: Hazard) -> HazardCurve:
    return HazardCurve(
        age=found.age.tolist(),
        hazard=found.hazard.tolist(),
        low=found.low.tolist(),
        high=found.high.tolist(),
    )
