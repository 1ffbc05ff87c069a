"""What a measurement depends on beside its command line and its code: engine and devices."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from pdswitch.engine.gpus import kinds_of
from pdswitch.engine.hardware import cpu_name
from pdswitch.engine.spec import EngineSpec

# Where a model lies, which has its digest, and which of several equal devices serves it.
SPEC_PLACES = ("model", "visible_devices")
PLACE_VARIABLES = ("NVIDIA_VISIBLE_DEVICES",)


def identity(spec: EngineSpec) -> dict[str, Any] | None:
    """Return which model is measured how and on what; None if the kind of a GPU is not known."""
    kinds = kinds_of(spec)
    if None in kinds:
        return None
    environment = json.dumps(_without(spec.environment, PLACE_VARIABLES), sort_keys=True)
    return {
        "engine": _without(msgspec.to_builtins(spec), SPEC_PLACES)
        # A digest: it may hold what nobody else should read.
        | {"environment": hashlib.sha256(environment.encode()).hexdigest()},
        "devices": [cpu_name(), *kinds],
    }


def _without(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in values if name not in names}
