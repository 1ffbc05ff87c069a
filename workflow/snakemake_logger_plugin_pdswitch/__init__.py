"""What Snakemake prints: a line when a job starts and one when it ends (`--logger pdswitch`).

Snakemake finds a logger plug-in by its package's name. A dry run and `--verbose` print all that
Snakemake prints; its own log file has the messages and errors of every run.
"""

import logging
import sys
import time
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


class WholeFormatter(DefaultFormatter):
    """Snakemake's own form, with the rule and its files in place of the rule's message."""

    def format_job_info(self, msg: dict[str, Any]) -> str:
        """Return the block that describes a job."""
        return super().format_job_info(msg | {"rule_msg": None})


class LineFormatter(DefaultFormatter):
    """One line for a job that starts, and one for a job that has ended."""

    # The log file has them.
    LEFT_OUT = (LogEvent.JOB_STARTED, LogEvent.WORKFLOW_STARTED)

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._group: str | None = None
        self._started: dict[int, tuple[str, float]] = {}

    def format(self, record: logging.LogRecord) -> str:
        """Return what is printed of a record, or nothing."""
        event = getattr(record, "event", None)
        left_out = event in self.LEFT_OUT or record.msg == "Select jobs to execute..."
        return "" if left_out else super().format(record)

    def format_group_info(self, msg: dict[str, Any]) -> str:
        """Keep the group's name for the lines of its jobs, which follow."""
        self._group = str(msg["group_id"])
        return ""

    def format_job_info(self, msg: dict[str, Any]) -> str:
        """Return what a job does, its group on a cluster, and why it runs."""
        what = msg["rule_msg"] or msg["rule_name"]
        self._started[msg["jobid"]] = (what, msg["created"])
        group = f" [{self._group}]" if msg.get("indent") else ""
        return f"{clock(msg)} start: {what}{group} ({reason_in_words(msg['reason'])})"

    def format_job_finished(self, msg: dict[str, Any]) -> str:
        """Return what a job did, and for how long since it was started or submitted."""
        what, started = self._started.pop(msg["job_id"], (msg["msg"], msg["created"]))
        return f"{clock(msg)} done in {msg['created'] - started:.0f} s: {what}"

    def format_progress(self, msg: dict[str, Any]) -> str:
        """Return how many of all jobs have ended."""
        return f"{clock(msg)} {msg['done']} of {msg['total']}"


def clock(msg: dict[str, Any]) -> str:
    """Return the time of day of a record."""
    return time.strftime("%H:%M:%S", time.localtime(msg["created"]))


def reason_in_words(reason: str) -> str:
    """Return Snakemake's reason for a job without the files that it lists."""
    parts = (part.partition(":")[0].strip().lower() for part in reason.split("; "))
    return "; ".join(part for part in parts if part) or "asked for"


class LogHandler(LogHandlerBase):
    """Prints to the screen; Snakemake's own filter stands before it, for `--quiet`."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Choose how much is printed."""
        asked = self.common_settings
        self._whole = asked.verbose or asked.dryrun
        form = (WholeFormatter if self._whole else LineFormatter)(
            asked.quiet, asked.show_failed_logs
        )
        stream = sys.stdout if asked.stdout else sys.stderr
        self._screen = ColorizingTextHandler(asked.nocolor, stream, form)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if not self._whole:
            # No empty line before a job's.
            self._screen.last_msg_was_job_info = True
        self._screen.emit(record)
