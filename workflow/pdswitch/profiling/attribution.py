"""To whom the time between a decode step and a refill belongs.

Under asynchronous scheduling the host prepares a refill while the device still decodes, and while
it does, the decode step's end is seen late: the record makes that step too long and the refill
too short by the same amount.
"""

import numpy as np
import pandas as pd


def charge_refills(steps: pd.DataFrame) -> pd.DataFrame:
    """Move the excess of a decode step that precedes a refill over to the refill.

    The excess is what the step took beyond the median of the decode steps of its batch size that
    do not precede a refill. Sums stay as they are. A step is left alone where no such step is on
    record.

    Args:
        steps: step records of one run, in order.

    Returns:
        The steps with corrected `duration_s`.
    """
    decode = (steps["decode_requests"] > 0) & (steps["prefill_tokens"] == 0)
    prefill = (steps["prefill_tokens"] > 0) & (steps["decode_requests"] == 0)
    before = decode & prefill.shift(-1, fill_value=False)
    typical = steps[decode & ~before].groupby("decode_requests")["duration_s"].median()
    excess = steps["duration_s"] - steps["decode_requests"].map(typical)
    moved = np.where(before & excess.notna(), excess.clip(lower=0).fillna(0), 0.0)
    corrected = steps.copy()
    corrected["duration_s"] = steps["duration_s"] - moved + np.concatenate([[0.0], moved[:-1]])
    return corrected
