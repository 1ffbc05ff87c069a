# Purpose: the last words on the screen: why jobs failed, what to do after an interruption, and what a
#          dry run could not list. Snakemake prints lines of its own after a job's, so that these
#          are printed when it exits.

import atexit
from pathlib import Path

from pdswitch.stages.job_log import last_words


def say_at_exit(sentence):
    """Print a sentence below all that Snakemake prints."""
    atexit.register(print, sentence, file=sys.stderr, flush=True)


def why_it_stopped():
    """The errors of the jobs that failed, each once; what to do if none did."""
    if not workflow.scheduler.failed:
        return (
            "The workflow was stopped before its end. What is finished is kept: "
            "to go on, run the same command again."
        )
    jobs_by_error = {}
    found = [pair for job in workflow.scheduler.failed for pair in errors_of(job)]
    for error, name in sorted(found, key=lambda pair: pair[1]):
        jobs_by_error.setdefault(error, []).append(name)
    return "\n".join(
        f"\n{', '.join(names)}:\n{error}" for error, names in jobs_by_error.items()
    )


def errors_of(failed):
    """The errors of a job, or of those of a cluster job that have any, each with the job's name."""
    members = [
        (job.name, log)
        for job in (failed if failed.is_group() else [failed])
        for log in job.log
    ]
    found = [
        (error, f"{name} ({log})")
        for name, log in members
        if (error := last_words(Path(log), since=WORKFLOW_BEGAN)) is not None
    ]
    if found:
        return found
    logs = ", ".join(str(log) for _, log in members)
    silent = f"error: the job ended without saying why; what it printed is in {logs}"
    return [(silent, members[0][0])]


SLOTS, PLAN = own_rule("slots"), own_rule("plan")


def say_what_is_not_listed():
    """Name what a dry run could not list, since a checkpoint comes first."""
    if not workflow.dryrun or workflow.scheduler is None:
        return
    asked = workflow.dag.needrun_jobs(exclude_finished=False)
    checkpoints_to_run = [job for job in asked if job.is_checkpoint]
    slots = {job.wildcards.dataset for job in checkpoints_to_run if job.name == SLOTS}
    plans = {
        job.wildcards.dataset
        for job in checkpoints_to_run
        if job.name == PLAN and not grid_is_known(job.wildcards)
    }
    for datasets, what in (
        (slots, "what runs with N* slots, a number that is computed first"),
        (plans, "runs of thresholds that follow from k*, which is computed first"),
    ):
        if datasets:
            print(
                f"Not listed for {', '.join(sorted(datasets))}: {what}.",
                file=sys.stderr,
            )


def grid_is_known(cell):
    """Whether no threshold of a cell's sweep depends on k*."""
    return len(k_grid(settings_of(cell.dataset).k_grid, int(cell.n))) == int(cell.n)


atexit.register(say_what_is_not_listed)


def say_interrupted(kind, error, trace):
    """Print a sentence in place of the traceback of Ctrl-C before the first job."""
    if issubclass(kind, KeyboardInterrupt):
        print("Interrupted: run the same command again.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = say_interrupted
