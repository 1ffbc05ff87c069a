"""Fits of prefill and decode step times, as they stand in `fit.json`."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from pdswitch.profiling.attribution import charge_refills
from pdswitch.profiling.robust import Floats, LinearFit, fit_linear

TABLE_BINS = 16


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
        ValueError: if the profile has no step of a kind.
    """
    charged = pd.concat(
        [charge_refills(run) for _, run in steps.sort_values(["run", "step"]).groupby("run")]
    )
    prefill = charged[(charged["prefill_tokens"] > 0) & (charged["decode_requests"] == 0)]
    prefill = prefill[prefill["kind"] == "prefill"]
    decode = charged[(charged["decode_requests"] > 0) & (charged["prefill_tokens"] == 0)]
    for name, part in (("prefill", prefill), ("decode", decode)):
        if part.empty:
            raise ValueError(f"the profile has no {name} step; raise num_{name}_samples or repeats")
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
        ),
    }


def fit_prefill(
    tokens: Floats, seconds: Floats, token_range: tuple[float, float] | None
) -> dict[str, Any]:
    """Fit a line over the range, and a hinge and a table over everything."""
    low, high = token_range or (tokens.min(), tokens.max())
    inside = (tokens >= low) & (tokens <= high)
    if np.unique(tokens[inside]).size < 3:
        inside = np.ones(tokens.size, dtype=bool)
        low, high = tokens.min(), tokens.max()
    x, y = tokens[inside], seconds[inside]
    line = fit_linear(np.column_stack([np.ones_like(x), x]), y, scale=y)
    alpha, beta = line.coefficients
    linear = {
        # A concave stretch gives a line that would start below zero; a time cannot.
        "alpha_p": max(float(alpha), 0.0),
        "alpha_p_unconstrained": float(alpha),
        "beta_p": max(float(beta), 0.0),
        **_errors(line, ("alpha_p", "beta_p")),
        "token_range": [float(low), float(high)],
        "n": int(x.size),
        "residuals_by_range": _residuals_by_range(x, y - alpha - beta * x),
    }
    return {
        "linear": linear,
        "hinge": _fit_hinge(tokens, seconds),
        "table": _table(tokens, seconds),
    }


def fit_decode(requests: Floats, context: Floats, seconds: Floats) -> dict[str, Any]:
    """Fit a line in the batch size, the same with a context term, and a table."""
    ones = np.ones_like(requests)
    line = fit_linear(np.column_stack([ones, requests]), seconds, scale=seconds)
    alpha, beta = line.coefficients
    full = fit_linear(np.column_stack([ones, requests, context]), seconds, scale=seconds)
    sizes = np.unique(requests)
    groups = [seconds[requests == size] for size in sizes]
    return {
        "linear": {
            "alpha_d": float(alpha),
            "beta_d": max(float(beta), 0.0),
            "beta_d_unconstrained": float(beta),
            **_errors(line, ("alpha_d", "beta_d")),
            "n": int(requests.size),
            "residuals_by_range": _residuals_by_range(requests, seconds - alpha - beta * requests),
        },
        "context": {
            **dict(zip(("alpha_d", "beta_d", "gamma_d"), full.coefficients.tolist(), strict=True)),
            **_errors(full, ("alpha_d", "beta_d", "gamma_d")),
        },
        "table": {
            "requests": sizes.tolist(),
            "seconds": [float(np.median(group)) for group in groups],
            "se": [_median_error(group) for group in groups],
            "n": [int(group.size) for group in groups],
        },
    }


def _errors(fit: LinearFit, names: tuple[str, ...]) -> dict[str, Any]:
    errors = np.sqrt(np.diag(fit.covariance))
    return {
        **{f"se_{name}": float(error) for name, error in zip(names, errors, strict=True)},
        "covariance": fit.covariance.tolist(),
        "r_squared": fit.r_squared,
        "rmse_s": fit.rmse,
    }


def _fit_hinge(tokens: Floats, seconds: Floats) -> dict[str, Any]:
    """max(floor, offset + rate·tokens), by robust least squares on relative residuals."""
    slope = (seconds[tokens.argmax()] - seconds.min()) / tokens.max()
    start = np.array([seconds.min(), 0.0, slope])
    unit = np.maximum(np.abs(start), [seconds.min(), seconds.min(), 1e-9])

    def residuals(scaled: Floats) -> Floats:
        floor, offset, rate = scaled * unit
        return np.asarray(np.maximum(floor, offset + rate * tokens) / seconds - 1)

    found = least_squares(residuals, start / unit, loss="soft_l1", f_scale=0.05)
    floor, offset, rate = (found.x * unit).tolist()
    predicted = np.maximum(floor, offset + rate * tokens)
    freedom = max(1, tokens.size - 3)
    noise = float((residuals(found.x) ** 2).sum() / freedom)
    covariance = noise * np.linalg.pinv(found.jac.T @ found.jac)
    errors = np.sqrt(np.diag(covariance)) * unit
    total = ((seconds - seconds.mean()) ** 2).sum()
    return {
        "floor_s": floor,
        "offset_s": offset,
        "rate_s_per_token": rate,
        "se_floor_s": float(errors[0]),
        "se_offset_s": float(errors[1]),
        "se_rate_s_per_token": float(errors[2]),
        "hinge_tokens": (floor - offset) / rate if rate > 0 else None,
        "r_squared": float(1 - ((seconds - predicted) ** 2).sum() / total) if total > 0 else 1.0,
        "rmse_s": float(np.sqrt(((seconds - predicted) ** 2).mean())),
    }


def _table(tokens: Floats, seconds: Floats) -> dict[str, Any]:
    """Medians in bins that hold about equally many samples, made monotone by nothing."""
    order = np.argsort(tokens, kind="stable")
    bins = np.array_split(order, min(TABLE_BINS, np.unique(tokens).size))
    rows: dict[float, Floats] = {}
    for members in bins:
        rows[float(np.median(tokens[members]))] = seconds[members]
    return {
        "tokens": list(rows),
        "seconds": [float(np.median(group)) for group in rows.values()],
        "se": [_median_error(group) for group in rows.values()],
        "n": [int(group.size) for group in rows.values()],
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
