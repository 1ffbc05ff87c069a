"""What the online run estimated of p and k*, over the part of it that neither ramps up nor drains.

In the drain only long answers are left: estimates there are too small, and so is the last k*.
"""

import math
from typing import Any

import pandas as pd

from pdswitch.analysis.metrics import steady_window


def online_estimation(
    history: pd.DataFrame, steps: pd.DataFrame, requests: pd.DataFrame, n_slots: int
) -> dict[str, Any]:
    """Return `online_estimation` of the results.

    Args:
        history: content of `kstar_history.parquet`.
        steps: step records of the online run.
        requests: its request records.
        n_slots: N.

    Returns:
        Medians `termination_probability` and `k_star` over the updates within the steady window;
        both are None without one, and a median between two thresholds is rounded up. The numbers of
        `updates` and of `steady_updates`; `completions`, requests that ended;
        `steady_completions`, how many had ended where the window begins and where it ends, None
        without a window; and `history`.
    """
    window = steady_window(steps, n_slots)
    steady, completions = history.iloc[:0], None
    if window is not None:
        inside = history["time_s"].between(window.start_s, window.end_s, inclusive="right")
        steady = history[inside]
        completions = [int((requests["finish_s"] <= moment).sum()) for moment in window]
    found = not steady.empty
    return {
        "termination_probability": float(steady["termination_probability"].median())
        if found
        else None,
        "k_star": math.ceil(steady["threshold"].median()) if found else None,
        "updates": len(history),
        "steady_updates": len(steady),
        "completions": int(requests["finish_s"].notna().sum()),
        "steady_completions": completions,
        "history": history.to_dict("records"),
    }
