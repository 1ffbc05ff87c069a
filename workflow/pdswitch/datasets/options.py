"""What can be said of each dataset in the config. Imports pydantic only."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class DatasetOptions(BaseModel):
    """Options that every dataset has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(description="Which loader reads it; the dataset's own name by default.")
    num_requests: int = Field(500, ge=1, description="Requests wanted in all.")
    max_input_tokens: int = Field(32000, ge=1, description="Longer prompts are skipped.")
    enable_thinking: bool = Field(False, description="For chat templates that know it.")
    shuffle: bool = Field(False, description="Take the samples in an order that the seed shuffles.")
    seed: int = Field(0, ge=0, description="Of the shuffle.")


class DemoOptions(DatasetOptions):
    """Prompts that come with the package."""


class AlpacaOptions(DatasetOptions):
    """tatsu-lab/alpaca: instructions with short inputs."""

    source: str = Field(
        "tatsu-lab/alpaca",
        description="Hub id, or a local file in either original form: a `text` column, or "
        "instruction, input and output.",
    )
    revision: str | None = Field(None, description="Hub revision.")


KINDS: dict[str, type[DatasetOptions]] = {"demo": DemoOptions, "alpaca": AlpacaOptions}


def option_class(kind: str) -> type[DatasetOptions]:
    """Return the options of a kind of dataset.

    Raises:
        ValueError: if there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(
            f"datasets.{kind} is not known; use one of {', '.join(sorted(KINDS))}, "
            "or say with `kind` how to read it"
        )
    return KINDS[kind]


def dataset_option_names(kind: str) -> set[str]:
    """Return the names of the options that a kind of dataset has."""
    return set(option_class(kind).model_fields)


def dataset_options(name: str, options: dict[str, Any]) -> DatasetOptions:
    """Validate the options of a dataset; its kind is its name unless they say otherwise."""
    kind = options.get("kind", name)
    return option_class(kind).model_validate(options | {"kind": kind})
