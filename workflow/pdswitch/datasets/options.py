"""What can be said of each dataset in the config: its module has a class of options.

Imports pydantic only, and of the datasets' modules those that a config names.
"""

import json
from collections.abc import Iterable
from importlib import import_module
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from pdswitch.catalogue import modules
from pdswitch.complaints import complaint, question
from pdswitch.datasets.laws import FixedLaw, GammaLaw, GeometricLaw, LognormalLaw, UniformLaw
from pdswitch.datasets.strict import Strict
from pdswitch.errors import InputError


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


def dataset_kinds() -> list[str]:
    """Return all kinds of dataset: the modules of this folder that have what a `Loader` has."""
    return [file.stem for file in modules("datasets", "columns", "records", "samples")]


def option_class(kind: str) -> type[DatasetOptions]:
    """Return the options of a kind of dataset.

    Raises:
        InputError: if there is no such kind.
    """
    known = dataset_kinds()
    if not isinstance(kind, str) or kind not in known:
        raise InputError(
            f"dataset kind {kind} is not known; {question(kind, known)}"
            f"use one of {', '.join(known)}, as the dataset's name or as its `kind`"
        )
    module = import_module(f"pdswitch.datasets.{kind}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, DatasetOptions)
        and value.__module__ == module.__name__
    )


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
    classes = map(option_class, dataset_kinds())
    model = next(options for options in classes if options.__name__ == error.title)
    return complaint(model, error, f"datasets.{name}", "docs/dataset_options.md", also)


def options_manual() -> str:
    """Return the options of all datasets as Markdown: name, default and meaning."""
    shared = DatasetOptions.model_fields
    parts = [
        "# Options of the datasets",
        "",
        "Made from the modules in `workflow/pdswitch/datasets` by `make schema`; do not edit.",
        "They stand under the dataset's name in `datasets`; what the config has at its top level "
        "too is taken from there by default.",
        *_table("For every dataset", shared),
    ]
    for kind in dataset_kinds():
        options = option_class(kind)
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
