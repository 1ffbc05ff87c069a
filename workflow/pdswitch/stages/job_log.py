"""What a failed job's log says, in a sentence."""

import re
from pathlib import Path

ERROR = re.compile(r"^(?:\S+: )?error: ", re.MULTILINE)
BUG = "This is a bug of pdswitch: report it with this traceback, see CONTRIBUTING.md."
TRACEBACK = re.compile(r"^Traceback \(most recent call last\):", re.MULTILINE)


def last_words(log: Path, since: float = 0.0) -> str | None:
    """Return why a job failed: its error as it stands, or where the traceback of a bug is.

    Args:
        log: what the job printed.
        since: a log that was last written before this time, s since the epoch, is another job's.

    Returns:
        None if the log is missing, is another job's, or says nothing.
    """
    if not log.is_file() or log.stat().st_mtime < since:
        return None
    # A progress bar goes over its own line.
    text = log.read_text(errors="replace").replace("\r", "\n")
    errors = list(ERROR.finditer(text))
    tracebacks = list(TRACEBACK.finditer(text))
    if errors and not any(one.start() > errors[-1].start() for one in tracebacks):
        return text[errors[-1].start() :].rstrip()
    if tracebacks:
        last = text.rstrip().removesuffix(BUG).rstrip().splitlines()[-1]
        return f"error: {last} (a bug; its traceback is in {log})"
    return None
