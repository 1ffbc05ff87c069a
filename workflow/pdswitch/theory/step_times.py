"""The four numbers of the linear step-time model."""

from dataclasses import dataclass, fields

from pdswitch.errors import InputError
from pdswitch.theory.curves import LinearDecode, LinearPrefill, StepCurves
from pdswitch.theory.validation import check_not_negative


@dataclass(frozen=True)
class StepTimes:
    """Linear step times.

    A prefill step of T tokens lasts alpha_p + beta_p·T, a decode step of j requests
    alpha_d + beta_d·j.

    Attributes:
        alpha_p: fixed time of a prefill step, seconds.
        beta_p: prefill time per prompt token, seconds.
        alpha_d: fixed time of a decode step, seconds.
        beta_d: decode time per active request, seconds.

    Raises:
        InputError: if a time is negative or not finite, or if all are zero.
    """

    alpha_p: float
    beta_p: float
    alpha_d: float
    beta_d: float

    def __post_init__(self) -> None:
        for field in fields(self):
            check_not_negative(field.name, getattr(self, field.name))
        if not any(getattr(self, field.name) for field in fields(self)):
            raise InputError("step times cannot all be 0; give at least one positive time")

    @property
    def curves(self) -> StepCurves:
        """The same model as a pair of curves."""
        return StepCurves(
            LinearPrefill(self.alpha_p, self.beta_p), LinearDecode(self.alpha_d, self.beta_d)
        )
