"""What can be said of each dataset in the config. Imports pydantic only."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pdswitch.complaints import complaint, expected, kinds, question, shown
from pdswitch.errors import InputError


class Strict(BaseModel):
    """Unknown keys are errors, and neither true nor infinity is a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            if isinstance(values.get(name), bool) and bool not in kinds(field.annotation):
                may_be = expected(field.annotation, field.metadata)
                raise InputError(f"{name} is {shown(values[name])}; use {may_be}")
        return values


class DatasetOptions(Strict):
    """Options that every dataset has."""

    kind: str = Field(description="Which loader reads it; the dataset's own name by default.")
    num_requests: int = Field(500, ge=1, description="Requests wanted in all.")
    max_input_tokens: int = Field(32000, ge=1, description="Longer prompts are skipped.")
    reuse_requests: bool = Field(
        False, description="Use requests again, in order, where there are too few."
    )
    enable_thinking: bool = Field(False, description="For chat templates that know it.")
    apply_chat_template: bool = Field(
        True, description="False: the prompt's text is sent as it stands."
    )
    shuffle: bool = Field(False, description="Take the samples in an order that the seed shuffles.")
    seed: int = Field(0, ge=0, description="Of the shuffle, and of random token ids and lengths.")

    # The option that says what to read: none for a dataset that needs no source.
    location_option: ClassVar[str | None] = None
    # Whether a request is a pair of lengths, its tokens being random.
    lengths_only: ClassVar[bool] = False

    @property
    def location(self) -> str | None:
        """The hub id or local path to read; None for a dataset that needs no source."""
        return getattr(self, self.location_option) if self.location_option else None

    @property
    def stream_seed(self) -> int | None:
        """The seed that a source shuffles with; None if it keeps its order."""
        return self.seed if self.shuffle else None


class SourceOptions(DatasetOptions):
    """Options of a dataset that is read from a file, a folder or the hub."""

    revision: str | None = Field(None, description="Hub revision; by default the newest.")

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if not self.location:
            raise InputError(
                f"{self.location_option} is missing; give a local path or a hub id to read"
            )
        return self


class DemoOptions(DatasetOptions):
    """Prompts that come with the package."""


class AlpacaOptions(SourceOptions):
    """tatsu-lab/alpaca: instructions with short inputs."""

    location_option = "source"
    source: str = Field(
        "tatsu-lab/alpaca",
        description="Hub id, a local copy of it, or a file in either original form: a `text` "
        "column, or instruction, input and output.",
    )


class ShareGPTOptions(SourceOptions):
    """ShareGPT: each human turn with the answer after it."""

    location_option = "sharegpt_path"
    sharegpt_path: str = Field(
        "./ShareGPT_V3_unfiltered_cleaned_split.json",
        description="ShareGPT's JSON file, or a folder or hub id that holds it under this name.",
    )


class LongBenchOptions(SourceOptions):
    """THUDM/LongBench-v2: multiple choice over a long context."""

    location_option = "source"
    source: str = Field("THUDM/LongBench-v2", description="Hub id, or a local copy or file of it.")


class LongBenchV1Options(SourceOptions):
    """THUDM/LongBench: 21 tasks over long contexts."""

    location_option = "source"
    source: str = Field("THUDM/LongBench", description="Hub id, or a local copy or file of it.")
    tasks: Literal["all"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all", description="All tasks, or a list of their names."
    )
    prompt_forms: str | None = Field(
        None,
        description="JSON file, task to prompt with {context} and {input}, in place of the forms "
        "that come with the package; LongBench's own dataset2prompt.json has this shape.",
    )


class LmsysOptions(SourceOptions):
    """lmsys/lmsys-chat-1m: first user turn of a million conversations; gated."""

    location_option = "source"
    source: str = Field("lmsys/lmsys-chat-1m", description="Hub id, or a local copy of it.")


class ProcessBenchOptions(SourceOptions):
    """Qwen/ProcessBench: mathematics, with solutions in steps."""

    location_option = "source"
    source: str = Field("Qwen/ProcessBench", description="Hub id, or a local copy or file of it.")
    processbench_split: Literal["gsm8k", "math", "olympiadbench", "omni-math"] = Field(
        "gsm8k", description="Which problems."
    )


class CustomOptions(SourceOptions):
    """Prompts of the user's own."""

    location_option = "custom_prompts"
    custom_prompts: str | None = Field(
        None, description="JSON, JSONL, CSV or Parquet file, a folder of such files, or a hub id."
    )
    prompt_column: str = Field(
        "prompt",
        min_length=1,
        description="Column of the prompts: text, or a list of messages with role and content.",
    )
    output_column: str | None = Field(None, description="Column of the answers, if there is one.")
    id_column: str | None = Field(None, description="Column of unique names, if there is one.")
    split: str = Field("train", description="Split, where the source has several.")
    subset: str | None = Field(None, description="Configuration, where the source has several.")


class TraceOptions(SourceOptions):
    """Lengths recorded by somebody's server; the token ids are random."""

    location_option = "source"
    lengths_only = True
    source: str | None = Field(None, description="CSV or JSONL file, a folder of one, or a hub id.")
    input_column: str | None = Field(
        None,
        description="Column of the input tokens. Default: as Azure, BurstGPT or Mooncake name it.",
    )
    output_column: str | None = Field(None, description="Column of the output tokens.")

    @model_validator(mode="after")
    def _names_both_columns(self) -> Self:
        if (self.input_column is None) != (self.output_column is None):
            raise InputError(
                "input_column and output_column go together; give both, or neither for a trace of "
                "Azure, BurstGPT or Mooncake"
            )
        return self


# Of a law: no context is longer, and no known lengths differ more. Twice that fits in int32.
LONGEST = 2**30
MOST_VARIED = 100


class FixedLaw(Strict):
    """Always the same length."""

    law: Literal["fixed"]
    tokens: int = Field(ge=1, le=LONGEST, description="The length.")


class UniformLaw(Strict):
    """Every length of a range is equally likely."""

    law: Literal["uniform"]
    low: int = Field(ge=1, le=LONGEST, description="Shortest length.")
    high: int = Field(ge=1, le=LONGEST, description="Longest length.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise InputError(f"low ({self.low}) is above high ({self.high}); swap them")
        return self


class GeometricLaw(Strict):
    """Each token is the last one with the same probability, 1/mean."""

    law: Literal["geometric"]
    mean: float = Field(ge=1, le=LONGEST, description="Mean length, tokens.")


class LognormalLaw(Strict):
    """Heavy-tailed, as lengths of chat are; rounded, at least 1."""

    law: Literal["lognormal"]
    mean: float = Field(ge=1, le=LONGEST, description="Mean length, tokens.")
    cv: float = Field(
        gt=0, le=MOST_VARIED, description="Coefficient of variation: standard deviation / mean."
    )


class GammaLaw(Strict):
    """Hazard rising (cv < 1) or falling (cv > 1) with age; rounded, at least 1."""

    law: Literal["gamma"]
    mean: float = Field(ge=1, le=LONGEST, description="Mean length, tokens.")
    cv: float = Field(
        gt=0, le=MOST_VARIED, description="Coefficient of variation: standard deviation / mean."
    )


LengthLaw = Annotated[
    FixedLaw | UniformLaw | GeometricLaw | LognormalLaw | GammaLaw, Field(discriminator="law")
]


class SyntheticOptions(DatasetOptions):
    """Lengths from a law, token ids by seed."""

    lengths_only = True
    input_lengths: LengthLaw = Field(
        GeometricLaw(law="geometric", mean=128), description="Law of the prompt lengths."
    )
    output_lengths: LengthLaw = Field(
        GeometricLaw(law="geometric", mean=128), description="Law of the answers' lengths."
    )


KINDS: dict[str, type[DatasetOptions]] = {
    "alpaca": AlpacaOptions,
    "custom": CustomOptions,
    "demo": DemoOptions,
    "lmsys": LmsysOptions,
    "longbench": LongBenchOptions,
    "longbench_v1": LongBenchV1Options,
    "processbench": ProcessBenchOptions,
    "sharegpt": ShareGPTOptions,
    "synthetic": SyntheticOptions,
    "trace": TraceOptions,
}


def option_class(kind: str) -> type[DatasetOptions]:
    """Return the options of a kind of dataset.

    Raises:
        InputError: if there is no such kind.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(
            f"dataset kind {kind} is not known; {question(kind, KINDS)}"
            f"use one of {', '.join(sorted(KINDS))}, as the dataset's name or as its `kind`"
        )
    return KINDS[kind]


def dataset_option_names(kind: str) -> set[str]:
    """Return the names of the options that a kind of dataset has."""
    return set(option_class(kind).model_fields)


def loader_module(kind: str) -> str:
    """Return the name of the module that reads a kind of dataset."""
    option_class(kind)
    return f"pdswitch.datasets.{kind}"


def dataset_options(name: str, options: dict[str, Any]) -> DatasetOptions:
    """Validate the options of a dataset; its kind is its name unless they say otherwise.

    Raises:
        InputError: if there is no such kind.
        pydantic.ValidationError: a ValueError too; `option_errors` puts it into one sentence.
    """
    kind = options.get("kind", name)
    return option_class(kind).model_validate(options | {"kind": kind})


def option_errors(name: str, error: ValidationError, also: Iterable[str] = ()) -> str:
    """Return what is wrong with a dataset's options as one sentence.

    Args:
        name: of the dataset.
        error: of its options, whose kind is known.
        also: further keys that may stand there.
    """
    model = next(kind for kind in KINDS.values() if kind.__name__ == error.title)
    return complaint(model, error, f"datasets.{name}", "docs/dataset_options.md", also)


def options_manual() -> str:
    """Return the options of all datasets as Markdown: name, default and meaning."""
    shared = DatasetOptions.model_fields
    parts = [
        "# Options of the datasets",
        "",
        "Made from `workflow/pdswitch/datasets/options.py` by `make schema`; do not edit.",
        "They stand under the dataset's name in `datasets`; what the config has at its top level "
        "too is taken from there by default.",
        *_table("For every dataset", shared),
    ]
    for kind, options in KINDS.items():
        own = {name: field for name, field in options.model_fields.items() if name not in shared}
        if own:
            parts += _table(f"`{kind}`: {_summary(options)}", own)
    parts += ["", "## Laws of lengths, for `synthetic`"]
    for law in (FixedLaw, UniformLaw, GeometricLaw, LognormalLaw, GammaLaw):
        fields = {name: field for name, field in law.model_fields.items() if name != "law"}
        name = law.__name__.removesuffix("Law").lower()
        keys = "; ".join(f"`{key}`: {field.description}" for key, field in fields.items())
        parts += ["", f"`law: {name}`. {_summary(law)} {keys}"]
    return "\n".join(parts) + "\n"


def _table(title: str, fields: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{name}` | {_default(field)} | {field.description} |" for name, field in fields.items()
    ]
    return ["", f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |", *rows]


def _default(field: Any) -> str:
    if field.is_required():
        return "the name"
    value = field.default
    return f"`{json.dumps(value.model_dump() if isinstance(value, BaseModel) else value)}`"


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip()
