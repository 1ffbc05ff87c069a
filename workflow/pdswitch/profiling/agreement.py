"""How far the step record agrees with the device's own clock."""

from typing import Any

import numpy as np
import pandas as pd

from pdswitch.errors import InputError
from pdswitch.profiling.attribution import charge_refills

KINDS = ("refill", "decode before a refill", "decode after a refill", "decode", "mixed")


def join_device_clock(steps: pd.DataFrame, device: pd.DataFrame) -> pd.DataFrame:
    """Put what the device's clock saw beside each step of one run's record.

    Args:
        steps: step record of the run, columns of `pdswitch.plugin.record.Step`.
        device: columns of `pdswitch.engine.device_clock.DeviceStep`, in order.

    Returns:
        The steps that scheduled tokens, with the device's columns, and besides `kind` (one of
        `KINDS`), `charged_s` (the record's time after `charge_refills`), `device_s` (from the end
        of the step before to the end of this one) and `device_idle_s` (the part of it in which the
        device waited for the host).

    Raises:
        InputError: if the two did not see the same steps.
    """
    tokens = steps["prefill_tokens"] + steps["decode_requests"]
    charged = charge_refills(steps)["duration_s"]
    joined = steps.assign(charged_s=charged)[tokens > 0].reset_index(drop=True)
    if tokens[tokens > 0].tolist() != device["tokens"].tolist():
        raise InputError("the device's clock and the step record did not see the same steps")
    joined = pd.concat([joined, device.drop(columns="tokens")], axis=1)
    before = device["end_s"].shift(1)
    joined["device_s"] = device["end_s"] - before.fillna(device["begin_s"])
    joined["device_idle_s"] = (device["begin_s"] - before).fillna(0.0).clip(lower=0.0)
    joined["kind"] = _kinds(joined)
    return joined


def agreement(joined: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare record and device by kind of step, one row a kind that occurs.

    Args:
        joined: results of `join_device_clock`, of one run or several.

    Returns:
        Rows of kind, steps, and in seconds: the medians of the device's time, of its idle part, of
        the record's error before and after `charge_refills`, and the 95th percentiles of both
        errors' sizes; and the share by which the record's sum differs from the device's.
    """
    rows = []
    for kind in KINDS:
        part = joined[joined["kind"] == kind]
        if part.empty:
            continue
        row: dict[str, Any] = {
            "kind": kind,
            "steps": len(part),
            "device_s": float(part["device_s"].median()),
            "device_idle_s": float(part["device_idle_s"].median()),
        }
        for name, column in (("record", "duration_s"), ("charged", "charged_s")):
            error = part[column] - part["device_s"]
            row[f"{name}_error_s"] = float(error.median())
            row[f"{name}_error_p95_s"] = float(error.abs().quantile(0.95))
            row[f"{name}_sum_error"] = float(error.sum() / part["device_s"].sum())
        rows.append(row)
    return rows


def _kinds(joined: pd.DataFrame) -> pd.Series:
    prefill, decode = joined["prefill_tokens"] > 0, joined["decode_requests"] > 0
    refill = prefill & ~decode
    names = [
        (prefill & decode, "mixed"),
        (refill, "refill"),
        (refill.shift(-1, fill_value=False), "decode before a refill"),
        (refill.shift(1, fill_value=False), "decode after a refill"),
    ]
    return pd.Series(
        np.select([c for c, _ in names], [n for _, n in names], "decode"), index=joined.index
    )
