"""The record of a run as data frames: the public address of what reads it."""

from typing import Any

import msgspec
import pandas as pd

from pdswitch.plugin.record import RequestRow, RunRecord, Step

__all__ = ["Record", "decode_record"]

STEP_TYPES = {name: "float64" if name.endswith("_s") else "int32" for name in Step._fields}
STEP_TYPES |= {"context_tokens": "int64", "refill_cause": "string"}

REQUEST_TYPES = {
    name: "string"
    if name in {"request_id", "finish_reason"}
    else "float64"
    if name.endswith("_s")
    else "int32"
    for name in RequestRow._fields
}

HISTORY_TYPES = {
    "completions": "int32",
    "time_s": "float64",
    "termination_probability": "float64",
    "threshold": "int32",
}


class Record(RunRecord):
    """All rows of one run, as the scheduler wrote them."""

    def steps_frame(self) -> pd.DataFrame:
        """Return the steps as a data frame with the columns of `Step`."""
        return _frame(self.steps, STEP_TYPES)

    def requests_frame(self) -> pd.DataFrame:
        """Return the requests as a data frame with the columns of `RequestRow`."""
        return _frame(self.requests, REQUEST_TYPES)

    def history_frame(self) -> pd.DataFrame:
        """Return the adaptive policy's look-ups, one row each."""
        return _frame([msgspec.structs.astuple(update) for update in self.history], HISTORY_TYPES)


def decode_record(data: bytes) -> Record:
    """Read what `RunRecord.write` wrote.

    Raises:
        msgspec.MsgspecError: if the bytes are no record of this version.
    """
    return msgspec.msgpack.decode(data, type=Record)


def _frame(rows: list[Any], types: dict[str, str]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return pd.DataFrame(
        {
            name: pd.Series(column, dtype=dtype)
            for (name, dtype), column in zip(types.items(), columns, strict=True)
        }
    )
