"""To whom the time between a decode step and a refill belongs.

Under asynchronous scheduling the host launches a refill while the device still decodes, and as
long as it does, it does not see that the decode step has ended: the record makes that step too
long and the refill too short by the same amount. On an H200 that is 8 ms in the median, a quarter
of the time of all refills (docs/h200.md).
"""

import numpy as np
import pandas as pd

from pdswitch.profiling.robust import fit_linear

FEWEST_STEPS = 10  # to know how long a decode step takes in this run


def charge_refills(steps: pd.DataFrame) -> pd.DataFrame:
    """Move what a decode step before a refill took too long over to the refill.

    Only decode steps that had not ended when the refill was scheduled are touched. How long they
    should have taken comes from a robust fit, linear in requests and context, to the run's other
    decode steps. Sums stay as they are. A run with fewer than `FEWEST_STEPS` of those is returned
    unchanged.

    Args:
        steps: step records of one run, in order.

    Returns:
        The steps with corrected `duration_s`.
    """
    decode = (steps["decode_requests"] > 0) & (steps["prefill_tokens"] == 0)
    prefill = (steps["prefill_tokens"] > 0) & (steps["decode_requests"] == 0)
    overlapped = steps["schedule_s"].shift(-1) < steps["done_s"]
    late = decode & prefill.shift(-1, fill_value=False) & overlapped
    others = decode & ~late
    if not late.any() or others.sum() < FEWEST_STEPS:
        return steps
    seconds = steps["duration_s"].to_numpy(np.float64)
    columns = [np.ones(len(steps)), steps["decode_requests"], steps["context_tokens"]]
    design = np.column_stack(columns).astype(np.float64)
    known = seconds[others]
    fit = fit_linear(design[others], known, scale=known)
    moved = np.where(late, seconds - design @ fit.coefficients, 0.0)
    return steps.assign(duration_s=seconds - moved + np.concatenate([[0.0], moved[:-1]]))
