# Purpose: the validated config, and how rules name paths, sources and options.
#
# Rules call their script through `shell:` and declare it, with the library modules that it
# imports, as inputs: Snakemake compares small files by content, so that touching a source reruns
# nothing and editing one reruns the stages that import it. Params carry only the part of the
# config that a stage reads, as one JSON text.

import json
import os
import random
import re
import shlex
import shutil
import sys
import time
from functools import cache
from importlib import metadata

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import IncompleteCheckpointException

sys.path.insert(0, os.path.join(workflow.basedir, "workflow"))

from pdswitch.config import ENGINE_KEEPING, parse_config
from pdswitch.datasets.options import dataset_options, loader_module
from pdswitch.datasets.source import input_files
from pdswitch.engine.processes import start_time
from pdswitch.errors import InputError
from pdswitch.estimation.catalogue import estimator_modules
from pdswitch.figures.catalogue import RESULT_FILES, figures
from pdswitch.files import read_json
from pdswitch.analysis.grid import k_grid
from pdswitch.model import WHEEL_PREFIX, model_files, model_slug
from pdswitch.stages.output_folder import refuse_unusable
from pdswitch.paths import local_path
from pdswitch.stages.sources import stage_sources
from pdswitch.stages.terminal import print_anything

print_anything()

try:
    CONFIG = parse_config(
        config,
        workflow.config_settings.config,
        [load_configfile(file) for file in workflow.config_settings.configfiles],
    )
    refuse_unusable(CONFIG.output_dir)
    FIGURE_CATALOGUE = figures()
except InputError as error:
    # Snakemake would put the place in this file below the sentence.
    sys.exit(f"error: config: {error}")


def folder_of(name):
    """The path of a folder that is written: `~/` is the home folder, another `~` a name."""
    if name.startswith("~/"):
        return os.path.expanduser(name)
    # Libraries would take it for a user's home.
    return os.path.abspath(name) if name.startswith("~") else name


RESULTS = folder_of(CONFIG.output_dir.rstrip("/"))
STORE = folder_of(CONFIG.store_dir)
# As part of a command that Snakemake formats.
QUOTED_STORE = shlex.quote(STORE).replace("{", "{{").replace("}", "}}")

# When the workflow began, and what it was told to run again: its jobs on a cluster, which are
# processes of their own, must know both. See pdswitch.stages.store.
if workflow.is_main_process:
    os.environ["PDSWITCH_WORKFLOW_BEGAN"] = str(time.time())
    os.environ["PDSWITCH_FORCED"] = "[]"
WORKFLOW_BEGAN = float(os.environ["PDSWITCH_WORKFLOW_BEGAN"])


envvars:
    "PDSWITCH_WORKFLOW_BEGAN",
    "PDSWITCH_FORCED",


# Scripts import the library of this checkout, wherever it lies. How long an engine is kept and
# waited for, and the store, are no params, because no result depends on them: a change reruns
# nothing. A job whose workflow is killed while it starts must still know that it had one.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={shlex.quote(os.path.join(workflow.basedir, 'workflow'))}"
    "${{PYTHONPATH:+:$PYTHONPATH}}"
    f" PDSWITCH_WORKFLOW={os.getpid()}:{start_time(os.getpid())}"
    f" PDSWITCH_IDLE_TIMEOUT_S={CONFIG.engine.idle_timeout_s}"
    f" PDSWITCH_START_TIMEOUT_S={CONFIG.engine.start_timeout_s}"
    f" PDSWITCH_RUN_TIMEOUT_S={CONFIG.engine.run_timeout_s}"
    f" PDSWITCH_STORE={QUOTED_STORE} PDSWITCH_STORE_GB={CONFIG.store_gb}; "
)

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


# What may be shared between workflows: `--cache prompts conversion`. Snakemake finds a result again
# by the rules' commands, params and inputs, so whatever else could change it must be in those.
CACHEABLE = {"conversion", "prompts"}
CONVERTING = ("torch", "transformers", "gguf")
TOKENIZING = ("transformers", "tokenizers", "jinja2", "pyarrow")


def refuse_stale_results(asked):
    """Stop if one of these rules could be given an old result by the cache."""
    for other in sorted(set(asked) - CACHEABLE):
        raise WorkflowError(
            f"--cache {other}: only {', '.join(sorted(CACHEABLE))} can be shared between workflows; "
            "name just those"
        )
    for slug, name in MODELS.items():
        revision = settings_of_model(slug).engine.revision
        local = name.startswith(WHEEL_PREFIX) or local_path(name) is not None
        if not local and revision is None:
            raise WorkflowError(
                f"--cache: {name} may change on the hub; set engine.revision to a commit"
            )
    for dataset in DATASETS:
        source = dataset_options(dataset, CONFIG.dataset_source(dataset))
        if source.location and not source.revision and not local_data(dataset):
            raise WorkflowError(
                f"--cache: {source.location} may change on the hub; "
                f"set datasets.{dataset}.revision to a commit"
            )


@cache
def versions(*packages):
    """The installed versions of these packages.

    As a param that is a function of input it is part of a cached result's key, and yet reruns
    nothing when a package is updated.
    """
    return {
        package: metadata.version(package)
        for package in packages
        if any(metadata.distributions(name=package))
    }


def sources(stage, *chosen):
    """The script of a stage and all library modules it imports, as paths."""
    return stage_sources(workflow.basedir, stage, *chosen)


def loader_of(dataset):
    """The module that reads a dataset."""
    return loader_module(CONFIG.dataset_source(dataset)["kind"])


def options(**values):
    """Part of the config as JSON text: builtins with sorted keys, so that equal means equal."""
    return json.dumps(values, sort_keys=True)


@cache
def settings_of(dataset):
    """The settings of a dataset."""
    return CONFIG.dataset(dataset)


@cache
def settings_of_model(model):
    """The settings of the model with this name in paths."""
    return CONFIG.model_settings(MODELS[model])


@cache
def engine_options(model, n, swept=False):
    """What the engine of a model with n slots depends on; whether a sweep is measured on it."""
    settings = settings_of_model(model)
    engine = settings.engine.model_dump(exclude=ENGINE_KEEPING)
    if int(n) != CONFIG.batch_size or (swept and CONFIG.optimize_batch_size):
        # N* slots share the memory that N* was computed for.
        with open(checkpoints.kv_budget.get(model=model).output[0]) as file:
            engine["num_kv_blocks"] = json.load(file)["blocks"]
    return options(
        **engine,
        n_slots=int(n),
        max_input_tokens=CONFIG.max_input_tokens,
        max_output_tokens=CONFIG.max_output_tokens,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        disable_multiprocessing=settings.disable_multiprocessing,
    )


def gpus_of(wildcards):
    """The GPUs that a measured job asks a cluster for."""
    settings = settings_of_model(wildcards.model)
    return 0 if settings.engine.device == "cpu" else settings.tensor_parallel_size


SAMPLING = options(**CONFIG.sampling.model_dump())

# Where the GPU build belongs; the same question as in the set-up.
ENVIRONMENT = os.path.join(
    workflow.basedir,
    "envs",
    "gpu" if shutil.which("nvidia-smi") else "cpu",
    "environment.yaml",
)


def memory_options(model):
    """What the KV budget of a model is computed from."""
    settings = settings_of_model(model)
    return options(
        gpu_memory_gb=CONFIG.gpu_memory_gb,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel_size=settings.tensor_parallel_size,
        model_memory_gb=settings.model_memory_gb,
        kv_cache_bytes=settings.kv_cache_bytes,
    )


def run_arguments(dataset):
    """What the online run and every run of the sweep have in common."""
    settings = settings_of(dataset)
    return (
        f"--lengths {settings.lengths} --skip {settings.n_offline}"
        f" --max-output-tokens {settings.max_output_tokens}"
    )


@cache
def forced():
    """The rules and files that Snakemake was told to run again, or "everything"."""
    # Snakemake knows them itself once it has read the rules.
    if workflow.is_main_process:
        asked = workflow.dag_settings
        named = {*asked.forcerun, *(asked.targets if asked.forcetargets else ())}
        os.environ["PDSWITCH_FORCED"] = json.dumps(
            "everything" if asked.forceall else sorted(named)
        )
    return json.loads(os.environ["PDSWITCH_FORCED"])


def again(rule):
    """What the jobs of a rule say when Snakemake was told to run them again, or nothing.

    A function of the output is no param that Snakemake compares. A second try of the same workflow
    finds what the first one measured.
    """

    def argument(wildcards, output):
        if forced() == "everything" or not {rule, *output}.isdisjoint(forced()):
            return f"--stored-since {os.environ['PDSWITCH_WORKFLOW_BEGAN']}"
        return ""

    return argument


def fixed_policy(wildcards):
    """How a run of the sweep switches; the latency guard only where there is one."""
    settings = settings_of(wildcards.dataset)
    guard = (
        "" if settings.max_hold_s is None else f" --max-hold-s {settings.max_hold_s}"
    )
    return f"--threshold {wildcards.k} --drain {settings.drain}{guard}"


# A few seconds each: on a cluster they run where snakemake does, instead of queueing.
localrules:
    fit,
    estimate,
    plan,
    kv_budget,
    slots,
    summary,
    report,
    datasets_table,
    all,
    datasets,
    thresholds,
    figures,


# One model's jobs before the next one's, so that its engine is loaded once; and of each model what
# the measured jobs wait for, so that none of the next model slips in between.
PREPARE, PROFILE, ONLINE, BLOCKS = 4_000_000, 3_000_000, 2_000_000, 1_000_000


def priority_of(model, stage):
    """The priority of a stage's jobs for a model."""
    return 10_000_000 * (len(MODELS) - list(MODELS).index(model)) + stage


def block_priority(model, rep, k):
    """Blocks in order, and within a block an order that the seed shuffles.

    It depends on (seed, block, k) alone: adding a k leaves the order of the others.
    """
    place = random.Random(f"{CONFIG.seed}/{rep}/{k}").randrange(1000)
    return priority_of(model, BLOCKS) - 1000 * int(rep) - place


def repeats_of(dataset):
    """The blocks of a dataset, counted from 1."""
    return range(1, settings_of(dataset).repeats + 1)


def k_grid_of(model, dataset, n):
    """The thresholds to measure; all of them are known once the plan checkpoint has run."""
    plan = checkpoints.plan.get(model=model, dataset=dataset, n=n)
    with open(plan.output[0]) as file:
        k_star = json.load(file)["threshold"]
    return k_grid(settings_of(dataset).k_grid, int(n), k_star)


def shard_of(wildcards):
    """The cluster job of a run: whole blocks of one sweep, hence one engine; here no job at all."""
    if workflow.local_exec:
        return None
    shard = (int(wildcards["rep"]) - 1) % CONFIG.shards + 1
    sweep = f"{wildcards['model']}-{wildcards['dataset']}-N={wildcards['n']}"
    group = f"{sweep}-shard={shard}"
    # All runs of a shard belong together, though none depends on another: what --group-components
    # is for. The process that runs the job on the cluster is not told that option.
    known = workflow.group_settings.group_components
    workflow.group_settings.group_components = {**known, group: sys.maxsize}
    return group


def every_plan():
    """Ask for the plan of every model and dataset.

    While a shard's job runs, no checkpoint may end: Snakemake would gather the groups anew and
    submit the same runs a second time.
    """
    for model in MODELS:
        for dataset in DATASETS:
            k_grid_of(model, dataset, slots_of(model, dataset))


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


def max_model_len_argument(model):
    """The engine's context where the config sets it."""
    explicit = settings_of_model(model).engine.max_model_len
    return f"--max-model-len {explicit}" if explicit else ""


def revision_argument(model):
    """The hub revision of a model where the config sets one."""
    revision = settings_of_model(model).engine.revision
    return f"--revision {shlex.quote(revision)}" if revision else ""


def local_data(dataset):
    """The files of this machine that a dataset is read from, so that an edit is noticed."""
    return input_files(dataset_options(dataset, CONFIG.dataset_source(dataset)))


def watchable(files):
    """Those of these files that can be inputs: Snakemake takes braces in a path for wildcards."""
    return [file for file in files if not set(file) & set("{}")]


def stamps(files):
    """Time and size of the files that cannot be inputs, so that an edit of one is a new param."""
    others = sorted({*files} - {*watchable(files)})
    return [[file, os.stat(file).st_mtime_ns, os.stat(file).st_size] for file in others]


def result_file(name):
    """The path of a result file that figures are drawn from."""
    place = RESULT_FILES[name]
    return f"{RESULTS}/{os.path.normpath(f'{{model}}/{{dataset}}/N={{n}}/{place}')}"


class Caption:
    """What Snakemake's own report prints under a figure; made when it is printed, not before."""

    def __init__(self, figure, wildcards):
        self._figure = figure
        self._results = result_file("results").format(**wildcards)
        self._dataset = wildcards.dataset

    def __str__(self):
        known = {
            **settings_of(self._dataset).model_dump(mode="json"),
            "n_offline": settings_of(self._dataset).n_offline,
            "num_prefill_samples": CONFIG.num_prefill_samples,
            "num_decode_repeats": CONFIG.num_decode_repeats,
        }
        said = [f"{key}: {known[key]}" for key in self._figure.settings]
        settings = f" Settings: {', '.join(said)}." if said else ""
        return self._figure.caption(read_json(self._results)) + settings


if workflow.workflow_settings.cache is not None:
    refuse_stale_results(workflow.workflow_settings.cache)
