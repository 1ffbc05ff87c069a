# Purpose: what of the config a stage reads, as its params: one JSON text, or arguments.

import shutil

from pdswitch.config import ENGINE_KEEPING


def json_param(**values):
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
    return json_param(
        **engine,
        n_slots=int(n),
        max_input_tokens=CONFIG.max_input_tokens,
        max_output_tokens=CONFIG.max_output_tokens,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        disable_multiprocessing=settings.disable_multiprocessing,
    )


SAMPLING = json_param(**CONFIG.sampling.model_dump())

# Where the GPU build belongs; the same question as in the set-up. Snakemake formats it.
ENVIRONMENT = os.path.join(
    os.path.abspath(CHECKOUT).replace("{", "{{").replace("}", "}}"),
    "envs",
    "gpu" if shutil.which("nvidia-smi") else "cpu",
    "environment.yaml",
)


def memory_options(model):
    """What the KV budget of a model is computed from."""
    settings = settings_of_model(model)
    return json_param(
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


def fixed_policy(wildcards):
    """How a run of the sweep switches; the latency guard only where there is one."""
    settings = settings_of(wildcards.dataset)
    guard = (
        "" if settings.max_hold_s is None else f" --max-hold-s {settings.max_hold_s}"
    )
    return f"--threshold {wildcards.k} --drain {settings.drain}{guard}"


def max_model_len_argument(model):
    """The engine's context where the config sets it."""
    explicit = settings_of_model(model).engine.max_model_len
    return f"--max-model-len {explicit}" if explicit else ""


def revision_argument(model):
    """The hub revision of a model where the config sets one."""
    revision = settings_of_model(model).engine.revision
    return f"--revision {shlex.quote(revision)}" if revision else ""
