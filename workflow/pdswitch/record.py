"""What a run leaves behind: one row per scheduler step, one per request.

The scheduler collects rows in memory and writes them once, at the end of the run, as MessagePack
columns. Jobs turn them into data frames. Times are seconds since the run's first `schedule()`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pdswitch.policy import KStarUpdate

if TYPE_CHECKING:
    import pandas as pd


class Step(NamedTuple):
    """One scheduler step.

    `duration_s` runs from the later of `schedule_s` and the previous step's `done_s` to `done_s`,
    so that durations add up to the wall clock. Under asynchronous scheduling the split between a
    refill and the decode step before it is off: see `pdswitch.profiling.attribution`.

    `refill_cause` is empty but for the steps of a refill: the first one says why it began (see
    `pdswitch.policy.RefillCause`), the others ``continued``. A step of a refill without prefill
    found no KV memory.
    """

    step: int
    schedule_s: float
    done_s: float
    duration_s: float
    prefill_requests: int
    prefill_tokens: int
    admitted: int
    decode_requests: int
    context_tokens: int
    running: int
    waiting: int
    threshold: int
    finished: int
    kv_blocks: int
    preempted: int
    cached_tokens: int
    refill_cause: str


class RequestRow(NamedTuple):
    """One request of a run; a time that never came is NaN (aborted before it)."""

    request_id: str
    prompt_tokens: int
    max_tokens: int
    output_tokens: int
    finish_reason: str
    arrival_s: float
    admitted_s: float
    first_token_s: float
    finish_s: float
    preemptions: int


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


class RunRecord(msgspec.Struct):
    """All rows of one run."""

    steps: list[Step]
    requests: list[RequestRow]
    history: list[KStarUpdate]

    def write(self, path: Path) -> None:
        """Write aside and rename, so that a half-written record is never read.

        Raises:
            OSError: if it cannot be written; nothing is left behind.
        """
        aside = path.with_name(path.name + ".part")
        try:
            aside.write_bytes(msgspec.msgpack.encode(self))
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def steps_frame(self) -> "pd.DataFrame":
        """Return the steps as a data frame with the columns of `Step`."""
        return _frame(self.steps, STEP_TYPES)

    def requests_frame(self) -> "pd.DataFrame":
        """Return the requests as a data frame with the columns of `RequestRow`."""
        return _frame(self.requests, REQUEST_TYPES)

    def history_frame(self) -> "pd.DataFrame":
        """Return the adaptive policy's look-ups, one row each."""
        types = {
            "completions": "int32",
            "time_s": "float64",
            "termination_probability": "float64",
            "threshold": "int32",
        }
        return _frame([msgspec.structs.astuple(update) for update in self.history], types)


def decode_record(data: bytes) -> RunRecord:
    """Read what `RunRecord.write` wrote."""
    return msgspec.msgpack.decode(data, type=RunRecord)


def _frame(rows: list[Any], types: dict[str, str]) -> "pd.DataFrame":
    # Imported here: the scheduler fills records inside the engine, which needs no pandas.
    import pandas as pd

    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    return pd.DataFrame(
        {
            name: pd.Series(column, dtype=dtype)
            for (name, dtype), column in zip(types.items(), columns, strict=True)
        }
    )
