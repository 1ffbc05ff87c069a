"""Laws of lengths, as the config names them. Imports pydantic only."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pdswitch.datasets.strict import Strict
from pdswitch.errors import InputError

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
