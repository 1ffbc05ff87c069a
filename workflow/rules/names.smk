# Purpose: the names in paths: models, datasets, cells, and the runs of a cell's sweep.

import re

from snakemake.exceptions import IncompleteCheckpointException

from pdswitch.analysis.grid import k_grid
from pdswitch.model import model_slug

# By the name they have in paths, in the order they are measured.
MODELS = {model_slug(name): name for name in CONFIG.models}
DATASETS = sorted(CONFIG.datasets)
MODEL = f"{RESULTS}/{{model}}"
CELL = f"{MODEL}/{{dataset}}/N={{n}}"
LOGS = "logs/{model}/{dataset}/N={n}"


wildcard_constraints:
    dataset="|".join(map(re.escape, DATASETS)),
    model="|".join(map(re.escape, MODELS)),
    n=r"\d+",
    k=r"\d+",
    rep=r"\d+",


def slots_of(model, dataset):
    """N: batch_size, or with optimize_batch_size N*, known once the slots checkpoint has run."""
    if not CONFIG.optimize_batch_size:
        return CONFIG.batch_size
    with open(checkpoints.slots.get(model=model, dataset=dataset).output[0]) as file:
        return json.load(file)["n_slots"]


def every_cell(*patterns):
    """Input function: the paths of these patterns for every model and dataset, each path once."""
    needs_slots = any("{n}" in pattern for pattern in patterns)

    def paths(wildcards):
        return list(
            dict.fromkeys(
                pattern.format(
                    model=model,
                    dataset=dataset,
                    n=slots_of(model, dataset) if needs_slots else None,
                )
                for model in MODELS
                for dataset in DATASETS
                for pattern in patterns
            )
        )

    return paths


def repeats_of(dataset):
    """The blocks of a dataset, counted from 1."""
    return range(1, settings_of(dataset).repeats + 1)


def k_grid_of(model, dataset, n):
    """The thresholds to measure; all of them are known once the plan checkpoint has run."""
    plan = checkpoints.plan.get(model=model, dataset=dataset, n=n)
    with open(plan.output[0]) as file:
        k_star = json.load(file)["threshold"]
    return k_grid(settings_of(dataset).k_grid, int(n), k_star)


def run_files(model, dataset, n, thresholds):
    """The run.json of every run of these thresholds, and of vLLM's own policy."""
    cell = CELL.format(model=model, dataset=dataset, n=n)
    policies = [f"threshold={k}" for k in thresholds] + ["policy=mixed"]
    return [
        f"{cell}/throughput/{policy}/rep={rep}/run.json"
        for rep in repeats_of(dataset)
        for policy in policies
    ]


def runs_of(model, dataset, n):
    """The run.json of every run of the sweep of a model with n slots on a dataset."""
    if not workflow.local_exec:
        every_plan()
    return run_files(model, dataset, n, k_grid_of(model, dataset, n))


def runs_before_the_plan(model, dataset, n):
    """The runs that the config alone names, for a dry run or a graph made before the plan.

    None where the workflow is executed: no run is measured before its k* is known and sealed.
    """
    if workflow.executor_plugin is not None and not workflow.dryrun:
        return []
    try:
        k_grid_of(model, dataset, n)
    except IncompleteCheckpointException:
        return run_files(model, dataset, n, k_grid(settings_of(dataset).k_grid, int(n)))
    return []
