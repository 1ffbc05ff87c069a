"""Fits of prefill and decode step times, as they stand in `fit.json`."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from pdswitch.errors import InputError
from pdswitch.profiling.modes import decode_modes
from pdswitch.profiling.robust import MAD_TO_SIGMA, Floats, LinearFit, fit_linear, goodness

TABLE_BINS = 16
HINGE_CORNERS = (0.15, 0.3, 0.5, 0.7, 0.85)  # quantiles of the tokens
HINGE_NAMES = ("floor_s", "offset_s", "rate_s_per_token")
HINGE_SCALE = 0.05  # relative residuals beyond it count as stalls


def fit_steps(
    steps: pd.DataFrame, n_slots: int, token_range: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Fit both curves to the profile's steps.

    Args:
        steps: step records with the columns `run` and `kind`.
        n_slots: N.
        token_range: the straight prefill line is fitted over this range of tokens only, the one
            that refills visit; None for all. With fewer than 3 samples inside, all are used.

    Raises:
        InputError: if the profile has no step of a kind.
    """
    prefill, decode = prefill_steps(steps), decode_steps(steps)
    options = {"prefill": "num_prefill_samples", "decode": "num_decode_repeats"}
    for name, part in (("prefill", prefill), ("decode", decode)):
        if part.empty:
            raise InputError(f"the profile has no {name} step; raise {options[name]}")
    return {
        "n_slots": n_slots,
        "prefill": fit_prefill(
            prefill["prefill_tokens"].to_numpy(np.float64),
            prefill["duration_s"].to_numpy(np.float64),
            token_range,
        ),
        "decode": fit_decode(
            decode["decode_requests"].to_numpy(np.float64),
            decode["context_tokens"].to_numpy(np.float64),
            decode["duration_s"].to_numpy(np.float64),
            decode["run"].to_numpy(),
        )
        | {"modes": decode_modes(steps)},
    }


def prefill_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the steps of a profile that prefill curves are fitted to.

    Those of the runs made of nothing else: where a run goes on with further steps, the host may
    see the end of its prefill late.
    """
    return steps[(steps["kind"] == "prefill") & (steps["prefill_tokens"] > 0)]


def decode_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the steps of a profile that decode curves are fitted to."""
    return steps[(steps["decode_requests"] > 0) & (steps["prefill_tokens"] == 0)]


def fit_prefill(
    tokens: Floats, seconds: Floats, token_range: tuple[float, float] | None
) -> dict[str, Any]:
    """Fit a line over the range, and a hinge and a table over everything."""
    low, high = token_range or (tokens.min(), tokens.max())
    inside = (tokens >= low) & (tokens <= high)
    if np.unique(tokens[inside]).size < 3:
        inside = np.ones(tokens.size, dtype=bool)
        low, high = tokens.min(), tokens.max()
    linear = _straight(tokens[inside], seconds[inside], ("alpha_p", "beta_p"))
    linear["token_range"] = [float(low), float(high)]
    return {
        "linear": linear,
        "hinge": _fit_hinge(tokens, seconds),
        "table": _table(tokens, seconds),
    }


def fit_decode(
    requests: Floats, context: Floats, seconds: Floats, runs: NDArray[Any] | None = None
) -> dict[str, Any]:
    """Fit a line in the batch size, the same with a context term, and a table.

    The steps of one run are alike beyond what they have in common with other runs, so that
    standard errors count runs, not steps, where `runs` labels them.
    """
    columns = np.column_stack([np.ones_like(requests), requests, context])
    full = fit_linear(columns, seconds, scale=seconds, groups=runs)
    sizes = np.unique(requests)
    groups = [seconds[requests == size] for size in sizes]
    return {
        "linear": _straight(requests, seconds, ("alpha_d", "beta_d"), runs),
        "context": {
            **dict(zip(("alpha_d", "beta_d", "gamma_d"), full.coefficients.tolist(), strict=True)),
            **_errors(full, ("alpha_d", "beta_d", "gamma_d")),
            "r_squared": full.r_squared,
            "rmse_s": full.rmse,
        },
        "table": {
            "requests": sizes.tolist(),
            "seconds": [float(np.median(group)) for group in groups],
            "se": [_median_error(group) for group in groups],
            "n": [int(group.size) for group in groups],
        },
    }


def _straight(
    x: Floats, y: Floats, names: tuple[str, str], runs: NDArray[Any] | None = None
) -> dict[str, Any]:
    """Fit y ≈ a + b·x with neither below zero.

    A concave stretch gives a line that would start below zero, noise one that falls; no step time
    does either. Then the other coefficient is fitted alone, so that the line still goes through
    the points. The free coefficients are told beside, and standard errors and covariance are
    theirs: the truth may lie on either side of the bound.
    """
    columns = np.column_stack([np.ones_like(x), x])
    free = fit_linear(columns, y, scale=y, groups=runs)
    kept = free.coefficients >= 0
    coefficients = free.coefficients.copy()
    if not kept.all():
        coefficients[:] = 0.0
        coefficients[kept] = fit_linear(columns[:, kept], y, scale=y).coefficients
    predicted = columns @ coefficients
    r_squared, rmse = goodness(y, predicted)
    return {
        **dict(zip(names, coefficients.tolist(), strict=True)),
        **{
            f"{name}_unconstrained": value
            for name, value in zip(names, free.coefficients.tolist(), strict=True)
        },
        **_errors(free, names),
        "r_squared": r_squared,
        "rmse_s": rmse,
        "n": int(x.size),
        "residuals_by_range": _residuals_by_range(x, y - predicted),
    }


def _errors(fit: LinearFit, names: tuple[str, ...]) -> dict[str, Any]:
    errors = np.sqrt(np.diag(fit.covariance))
    return {
        **{f"se_{name}": float(error) for name, error in zip(names, errors, strict=True)},
        "covariance": fit.covariance.tolist(),
    }


def _fit_hinge(tokens: Floats, seconds: Floats) -> dict[str, Any]:
    """max(floor, offset + rate·tokens), by robust least squares on relative residuals.

    The sum of squares has a valley for every place the corner may take, hence several starts. A
    parameter that no sample touches, because all lie on the other branch, has no standard error.
    """
    starts = (_hinge_start(tokens, seconds, corner) for corner in HINGE_CORNERS)
    found = min((_settle_hinge(tokens, seconds, start) for start in starts), key=lambda f: f.cost)
    floor, offset, rate = found.x
    rising = offset + rate * tokens > floor
    predicted = np.maximum(floor, offset + rate * tokens)
    # Off the branch that was seen, the hinge goes on as the nearest sample says.
    floor = float(predicted.min())
    if not rising.any():
        offset, rate = floor, 0.0
    error = predicted / seconds - 1
    noise = MAD_TO_SIGMA * float(np.median(np.abs(error)))
    noise *= np.sqrt(tokens.size / max(1, tokens.size - 3))
    sloping = np.unique(tokens[rising]).size > 1
    seen = (not rising.all(), sloping, sloping)
    spread = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac))) * noise
    r_squared, rmse = goodness(seconds, predicted)
    return {
        "floor_s": floor,
        "offset_s": float(offset),
        "rate_s_per_token": float(rate),
        **{
            f"se_{name}": float(value) if known else None
            for name, value, known in zip(HINGE_NAMES, spread, seen, strict=True)
        },
        "hinge_tokens": float((floor - offset) / rate) if all(seen) and rate > 0 else None,
        "r_squared": r_squared,
        "rmse_s": rmse,
    }


def _hinge_start(tokens: Floats, seconds: Floats, corner: float) -> Floats:
    """Floor, offset and rate from the samples below and above a quantile of the tokens."""
    small = tokens <= np.quantile(tokens, corner)
    floor = float(np.median(seconds[small]))
    # Through the corner, where both branches meet.
    bend = float(tokens[small].max())
    above = ~small
    if not above.any():
        return np.array([floor, 0.0, floor / bend])
    rate = max(0.0, float(np.median((seconds[above] - floor) / (tokens[above] - bend))))
    return np.array([floor, floor - rate * bend, rate])


def _settle_hinge(tokens: Floats, seconds: Floats, start: Floats) -> OptimizeResult:
    def residuals(parameters: Floats) -> Floats:
        floor, offset, rate = parameters
        return np.asarray(np.maximum(floor, offset + rate * tokens) / seconds - 1)

    typical = float(np.median(seconds))
    return least_squares(
        residuals,
        start,
        loss="soft_l1",
        f_scale=HINGE_SCALE,
        x_scale=[typical, typical, typical / float(tokens.max())],
        bounds=([0.0, -np.inf, 0.0], np.inf),
    )


def _table(tokens: Floats, seconds: Floats) -> dict[str, Any]:
    """Medians in bins of neighbouring sizes; all samples of one size lie in one bin."""
    sizes = np.unique(tokens)
    members = [np.isin(tokens, part) for part in np.array_split(sizes, min(TABLE_BINS, sizes.size))]
    return {
        "tokens": [float(np.median(tokens[chosen])) for chosen in members],
        "seconds": [float(np.median(seconds[chosen])) for chosen in members],
        "se": [_median_error(seconds[chosen]) for chosen in members],
        "n": [int(chosen.sum()) for chosen in members],
    }


def _median_error(group: Floats) -> float | None:
    # 1.2533 = √(π/2): the median's standard error under normal errors.
    if group.size < 2:
        return None
    return float(1.2533 * group.std(ddof=1) / np.sqrt(group.size))


def _residuals_by_range(x: Floats, residual: Floats, parts: int = 4) -> list[dict[str, Any]]:
    order = np.argsort(x, kind="stable")
    return [
        {
            "lo": float(x[members].min()),
            "hi": float(x[members].max()),
            "n": int(members.size),
            "median_s": float(np.median(residual[members])),
            "rmse_s": float(np.sqrt((residual[members] ** 2).mean())),
        }
        for members in np.array_split(order, min(parts, x.size))
    ]
