"""The base of everything that can be said in the config. Imports pydantic only."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from pdswitch.complaints import expected, kinds, shown
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
