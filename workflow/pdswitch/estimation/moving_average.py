"""The exponential moving average of a sample."""

import math

import numpy as np

from pdswitch.errors import InputError
from pdswitch.estimation.lengths import FloatArray


def moving_average(values: FloatArray, smoothing: float) -> tuple[float, float]:
    """Return the moving average of the values and its standard error, for independent values."""
    check_smoothing(smoothing)
    n = values.size
    age = np.arange(n - 1, -1, -1.0)
    weights = smoothing * (1.0 - smoothing) ** age
    weights[0] = (1.0 - smoothing) ** (n - 1)
    # One value shows no spread: lengths vary about as much as they are long.
    spread = float(values.std(ddof=1)) if n > 1 else float(values[0])
    return float(weights @ values), spread * math.sqrt(float(weights @ weights))


def check_smoothing(smoothing: float) -> float:
    """Return the weight of the newest observation.

    Raises:
        InputError: if it is not in (0, 1].
    """
    if not 0.0 < smoothing <= 1.0:
        raise InputError(f"smoothing must be in (0, 1], got {smoothing}")
    return float(smoothing)
