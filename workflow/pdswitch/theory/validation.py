"""Checks of arguments; each failure is a `InputError` with one sentence that says what to do."""

import math
from typing import Literal, get_args

from pdswitch.errors import InputError

PerCompletion = Literal["expected", "single_exit"]


def check_slots(n_slots: int, name: str = "n_slots") -> int:
    """Return the number of slots, an integer of at least 1."""
    whole = math.isfinite(n_slots) and int(n_slots) == n_slots
    if isinstance(n_slots, bool) or not whole or n_slots < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {n_slots}")
    return int(n_slots)


def check_probability(termination_probability: float) -> float:
    """Return the termination probability per token, in (0, 1]."""
    value = float(termination_probability)
    if not 0.0 < value <= 1.0:
        raise InputError(
            f"termination_probability must be in (0, 1], got {value}; "
            "it is 1 / mean output length in tokens"
        )
    return value


def check_not_negative(name: str, value: float) -> float:
    """Return a finite number that is not negative."""
    number = float(value)
    if not (math.isfinite(number) and number >= 0.0):
        raise InputError(
            f"{name} must be a finite number of at least 0, got {number}; "
            "clip a negative fit to 0 or fit again over the range that is used"
        )
    return number


def check_positive(name: str, value: float) -> float:
    """Return a finite number above 0."""
    number = float(value)
    if not (math.isfinite(number) and number > 0.0):
        raise InputError(f"{name} must be a finite number above 0, got {number}")
    return number


def check_per_completion(per_completion: str) -> None:
    """Refuse an unknown rule for the time per completion."""
    if per_completion not in get_args(PerCompletion):
        raise InputError(
            f"per_completion must be one of {', '.join(get_args(PerCompletion))}, "
            f"got {per_completion!r}"
        )
