"""What a run leaves behind: one row per scheduler step, one per request.

The scheduler collects rows in memory and writes them once, at the end of the run, as MessagePack
columns. `pdswitch.record` reads them. Times are seconds since the run's first `schedule()`.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from pdswitch.plugin.policy import KStarUpdate


class Step(NamedTuple):
    """One scheduler step.

    `duration_s` runs from the later of `schedule_s` and the previous step's `done_s` to `done_s`,
    so that durations add up to the wall clock. Under asynchronous scheduling the split between a
    refill and the decode step before it is off: see `pdswitch.profiling.attribution`.

    `refill_cause` is empty but for the steps of a refill: the first one says why it began (see
    `pdswitch.plugin.policy.RefillCause`), the others ``continued``. A step of a refill without
    prefill found no KV memory.
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
