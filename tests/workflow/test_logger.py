"""The lines on the screen: one when a job starts, one when it ends."""

import logging
import re
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from snakemake_logger_plugin_pdswitch import LogHandler, reason_in_words


def record(event: LogEvent | None, created: float = 0.0, **fields) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.INFO, "", 1, fields.pop("text", ""), (), None)
    made.__dict__ |= {"event": event, "created": created, **fields}
    return made


JOB = {
    "jobid": 3,
    "rule_name": "throughput",
    "rule_msg": "Measure k = 4, block 2: tiny on demo, 4 slots",
    "reason": "Missing output files: a/run.json, a/steps.parquet; Code has changed since last run",
    "local": False,
    "is_checkpoint": False,
    "input": ["in"],
    "output": ["out"],
    "log": [],
    "benchmark": None,
    "wildcards": {"k": "4"},
    "priority": 0,
    "threads": 1,
    "resources": {},
}


def handler(**asked: bool) -> LogHandler:
    settings = {"verbose": False, "dryrun": False, "stdout": False, "nocolor": True}
    settings |= {"quiet": None, "show_failed_logs": False}
    return LogHandler(SimpleNamespace(**settings | asked), None)


def lines(screen: str) -> list[str]:
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in screen.splitlines()]


def test_snakemake_finds_it():
    assert LoggerPluginRegistry().is_installed("pdswitch")


def test_a_job_has_a_line_when_it_starts_and_one_when_it_ends(capsys):
    ours = handler()
    ours.emit(record(None, text="Select jobs to execute..."))
    ours.emit(record(LogEvent.JOB_STARTED, jobs=[3], text="Execute 1 jobs..."))
    ours.emit(record(LogEvent.JOB_INFO, 10.0, **JOB))
    ours.emit(record(LogEvent.JOB_FINISHED, 22.4, job_id=3))
    ours.emit(record(LogEvent.PROGRESS, done=12, total=40))
    ours.emit(record(None, text="Nothing to be done."))
    what = "Measure k = 4, block 2: tiny on demo, 4 slots"
    assert lines(capsys.readouterr().err) == [
        f"start: {what} (missing output files; code has changed since last run)",
        f"done in 12 s: {what}",
        "12 of 40",
        "Nothing to be done.",
    ]


def test_the_jobs_of_a_shard_name_it(capsys):
    ours = handler()
    ours.emit(record(LogEvent.GROUP_INFO, group_id="tiny-demo-N=4-shard=1", jobs=[]))
    ours.emit(record(LogEvent.JOB_INFO, **JOB | {"indent": True}))
    (line,) = lines(capsys.readouterr().err)
    assert " [tiny-demo-N=4-shard=1] (missing" in line


@pytest.mark.parametrize("asked", ["verbose", "dryrun"])
def test_a_dry_run_and_verbose_print_the_whole_block(capsys, asked):
    handler(**{asked: True}).emit(record(LogEvent.JOB_INFO, **JOB))
    printed = capsys.readouterr().err
    assert "rule throughput:\n    input: in\n    output: out\n" in printed
    assert "wildcards: k=4" in printed


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", "asked for"),
        ("Forced execution", "forced execution"),
        (
            "Missing output files: a, b; Updated input files: c",
            "missing output files; updated input files",
        ),
    ],
)
def test_a_reason_leaves_the_files_to_the_log(reason, words):
    assert reason_in_words(reason) == words
