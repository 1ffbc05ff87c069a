"""Whether decode steps of one size take one time or two, as where threads share a core.

The batch size sets a step's time, in stairs where CUDA graphs pad it, and so does the context. What
is left within one size is noise about one time on a quiet machine.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pdswitch.profiling.robust import Floats
from pdswitch.profiling.two_modes import SMALLEST_MODE, two_modes

# Of one size; a profile with two repeats has 14.
FEWEST_STEPS = 12
# Of more steps, so many quantiles: what `two_modes` costs grows with the square.
MOST_STEPS = 200
# Least distance of the modes in standard deviations, and below how many steps it is more.
SMALLEST_DISTANCE = 8.0
MANY_STEPS = 24
# Chance that a slow step holds more context than a fast one, from which on context explains it.
SEPARATED_BY_CONTEXT = 0.9


def decode_modes(steps: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the batch sizes at which decode steps take two times.

    Left out are the steps next to one with a prefill, whose record is off under asynchronous
    scheduling (see `pdswitch.profiling.attribution`), and sizes with fewer than `FEWEST_STEPS`.

    Args:
        steps: step records, in order; with a column `run` where they are of several runs.

    Returns:
        For each such size `requests`, `steps`, the medians of the two modes `modes_s` in s, and the
        share of the steps in the slower one `slow_share`.
    """
    prefills = steps["prefill_tokens"] > 0
    if "run" in steps:
        by_run = prefills.groupby(steps["run"])
        before, after = by_run.shift(1, fill_value=False), by_run.shift(-1, fill_value=False)
    else:
        before, after = prefills.shift(1, fill_value=False), prefills.shift(-1, fill_value=False)
    apart = steps[(steps["decode_requests"] > 0) & ~(prefills | before | after)]
    found = []
    for size, part in apart.groupby("decode_requests"):
        seconds = part["duration_s"].to_numpy(np.float64)
        modes = _modes(seconds, part["context_tokens"].to_numpy(np.float64))
        if modes is not None:
            found.append(
                {
                    "requests": int(size),
                    "steps": len(part),
                    "modes_s": list(modes),
                    "slow_share": float(_is_slow(seconds, modes).mean()),
                }
            )
    return found


def most_slow_steps(found: dict[str, Any]) -> float:
    """Order what `decode_modes` returns by the number of slow steps."""
    return float(found["steps"] * found["slow_share"])


def _modes(seconds: Floats, context: Floats) -> tuple[float, float] | None:
    """Return the medians of two modes, or None.

    Stricter than `two_modes`, because a sweep has thousands of groups and one check has two: few
    steps must lie further apart, and a mode has more steps than a tenth of them by three standard
    deviations, so that stalls are none.
    """
    count = seconds.size
    if count < FEWEST_STEPS:
        return None
    shown = seconds
    if count > MOST_STEPS:
        shown = np.quantile(seconds, (np.arange(MOST_STEPS) + 0.5) / MOST_STEPS)
    modes = two_modes(shown.tolist())
    if modes is None:
        return None
    slow = _is_slow(seconds, modes)
    logs = np.log(seconds)
    width = np.sqrt((logs[slow].var() + logs[~slow].var()) / 2)
    distance = logs[slow].mean() - logs[~slow].mean()
    fewest = SMALLEST_MODE * count + 3 * np.sqrt(SMALLEST_MODE * (1 - SMALLEST_MODE) * count)
    if (
        min(slow.sum(), (~slow).sum()) < fewest
        or distance < SMALLEST_DISTANCE * max(1.0, MANY_STEPS / count) * width
        or _explained(modes, context[~slow], context[slow])
    ):
        return None
    return modes


def _is_slow(seconds: Floats, modes: tuple[float, float]) -> NDArray[np.bool_]:
    return seconds > np.sqrt(modes[0] * modes[1])


def _explained(modes: tuple[float, float], fast: Floats, slow: Floats) -> bool:
    """Whether the context of fast and slow steps explains that they differ.

    The slow ones hold more, and a step's time grows no faster than its context does.
    """
    more = (slow[:, None] > fast).mean()
    enough = modes[1] / modes[0] <= np.median(slow) / max(np.median(fast), 1.0)
    return bool(more >= SEPARATED_BY_CONTEXT and enough)
