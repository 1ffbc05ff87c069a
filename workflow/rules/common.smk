# Purpose: the validated config, and how rules name paths, sources and options.
#
# Rules call their script through `shell:` and declare it, with the library modules that it
# imports, as inputs: Snakemake compares small files by content, so that touching a source reruns
# nothing and editing one reruns the stages that import it. Params carry only the part of the
# config that a stage reads, as one JSON text.

import json
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(workflow.basedir, "workflow"))

from pdswitch.config import ConfigError, parse_config
from pdswitch.datasets.options import dataset_options, loader_module
from pdswitch.datasets.source import input_files
from pdswitch.model import model_slug
from pdswitch.sources import stage_sources

try:
    CONFIG = parse_config(config)
except ConfigError as error:
    raise WorkflowError(f"config: {error}") from None

# Scripts import the library of this checkout, wherever it lies. How long an engine is kept is no
# param, because no result depends on it: a change reruns nothing.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={os.path.join(workflow.basedir, 'workflow')}"
    "${{PYTHONPATH:+:$PYTHONPATH}}"
    f" PDSWITCH_IDLE_TIMEOUT_S={CONFIG.engine.idle_timeout_s}"
    f" PDSWITCH_START_TIMEOUT_S={CONFIG.engine.start_timeout_s}; "
)

RESULTS = CONFIG.output_dir.rstrip("/")
MODEL = model_slug(CONFIG.model)
N_SLOTS = CONFIG.batch_size
DATASETS = sorted(CONFIG.datasets)
CELL = f"{RESULTS}/{MODEL}/{{dataset}}/N={N_SLOTS}"


wildcard_constraints:
    dataset="[^/]+",
    model="[^/]+",
    n=r"\d+",
    k=r"\d+",
    rep=r"\d+",


def sources(stage, *chosen):
    """The script of a stage and all library modules it imports, as paths."""
    return stage_sources(workflow.basedir, stage, *chosen)


def loader_of(dataset):
    """The module that reads a dataset."""
    return loader_module(CONFIG.dataset_source(dataset)["kind"])


def options(**values):
    """Part of the config as JSON text: builtins with sorted keys, so that equal means equal."""
    return json.dumps(values, sort_keys=True)


def engine_options():
    """What an engine depends on."""
    settings = CONFIG.engine.model_dump(exclude={"idle_timeout_s", "start_timeout_s"})
    return options(
        **settings,
        n_slots=N_SLOTS,
        max_input_tokens=CONFIG.max_input_tokens,
        max_output_tokens=CONFIG.max_output_tokens,
        tensor_parallel_size=CONFIG.tensor_parallel_size,
        gpu_memory_utilization=CONFIG.gpu_memory_utilization,
        disable_multiprocessing=CONFIG.disable_multiprocessing,
    )


def settings_of(wildcards):
    """The settings of the dataset in the wildcards."""
    return CONFIG.dataset(wildcards.dataset)


SAMPLING = options(**CONFIG.sampling.model_dump())
ENGINE = engine_options()

# Where the GPU build belongs; the same question as in the set-up.
ENVIRONMENT = os.path.join(
    workflow.basedir,
    "envs",
    "gpu" if shutil.which("nvidia-smi") else "cpu",
    "environment.yaml",
)


def memory_options():
    """What N* is computed from, or nothing if it is not wanted."""
    if not CONFIG.optimize_batch_size:
        return None
    names = {
        "gpu_memory_gb",
        "gpu_memory_utilization",
        "model_memory_gb",
        "kv_cache_bytes",
        "oom_tolerance",
    }
    return CONFIG.model_dump(include=names)


def run_arguments(wildcards):
    """What the online run and every run of the sweep have in common."""
    settings = settings_of(wildcards)
    return (
        f"--lengths {settings.lengths} --skip {settings.n_offline}"
        f" --max-output-tokens {settings.max_output_tokens}"
    )


def block_priority(rep, k):
    """Blocks in order, and within a block an order that the seed shuffles.

    It depends on (seed, block, k) alone: adding a k leaves the order of the others.
    """
    place = random.Random(f"{CONFIG.seed}/{rep}/{k}").randrange(1000)
    return 1_000_000 - 1000 * rep - place


def repeats_of(dataset):
    """The blocks of a dataset, counted from 1."""
    return range(1, CONFIG.dataset(dataset).repeats + 1)


def k_grid(dataset):
    """The thresholds to measure; known once the plan checkpoint has run."""
    with open(checkpoints.plan.get(dataset=dataset).output.grid) as file:
        return json.load(file)


def runs_of(dataset):
    """The run.json of every run of a dataset's sweep."""
    cell = CELL.format(dataset=dataset)
    policies = [f"threshold={k}" for k in k_grid(dataset)] + ["policy=mixed"]
    return [
        f"{cell}/throughput/{policy}/rep={rep}/run.json"
        for rep in repeats_of(dataset)
        for policy in policies
    ]


def max_model_len_argument():
    """The engine's context where the config sets it."""
    explicit = CONFIG.engine.max_model_len
    return f"--max-model-len {explicit}" if explicit else ""


def local_data(dataset):
    """The files of this machine that a dataset is read from, so that an edit is noticed."""
    return input_files(dataset_options(dataset, CONFIG.dataset_source(dataset)))


def caption_settings(wildcards):
    """What the captions of Snakemake's own report print."""
    settings = settings_of(wildcards)
    return {
        **settings.model_dump(mode="json"),
        "n_offline": settings.n_offline,
        "num_prefill_samples": CONFIG.num_prefill_samples,
        "num_decode_repeats": CONFIG.num_decode_repeats,
    }
