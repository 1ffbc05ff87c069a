"""Whether times that should be equal are two: as where two threads share a core."""

import math
from collections.abc import Sequence
from statistics import fmean, median, pvariance

# Each mode has at least this share of the steps: a few stalls are no mode.
SMALLEST_MODE = 0.1
SMALLEST_RATIO = 1.2
# Distance of two modes in standard deviations. Two parts of 50 draws of one law (normal, uniform or
# exponential) are further apart in less than 1 of 1,000 cases (tests/engine/test_self_check.py).
SMALLEST_DISTANCE = 6.0
NARROWEST_MODE = 1e-3


def two_modes(durations_s: Sequence[float]) -> tuple[float, float] | None:
    """Return the medians of two modes that the logarithms of these times fall into, or None.

    The times are cut where the variance between the parts is largest (Otsu 1979,
    doi:10.1109/TSMC.1979.4310076). The parts are modes if Ashman's D (Ashman, Bird and Zepf 1994,
    doi:10.1086/117248) is at least `SMALLEST_DISTANCE`, and their ratio `SMALLEST_RATIO`.
    """
    times = sorted(duration for duration in durations_s if duration > 0)
    logs, count = [math.log(time) for time in times], len(times)
    fewest = max(1, math.ceil(SMALLEST_MODE * count))
    cuts = range(fewest, count - fewest + 1)
    if not cuts:
        return None

    def between(cut: int) -> float:
        return cut * (count - cut) * (fmean(logs[cut:]) - fmean(logs[:cut])) ** 2

    cut = max(cuts, key=between)
    low, high = logs[:cut], logs[cut:]
    width = max(NARROWEST_MODE, math.sqrt((pvariance(low) + pvariance(high)) / 2))
    distance = fmean(high) - fmean(low)
    if distance < max(math.log(SMALLEST_RATIO), SMALLEST_DISTANCE * width):
        return None
    return median(times[:cut]), median(times[cut:])
