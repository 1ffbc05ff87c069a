"""What a measurement depends on beside its command line and its code: model, engine and devices."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from pdswitch.engine.gpus import kinds_of
from pdswitch.engine.hardware import cpu_name
from pdswitch.engine.spec import EngineSpec
from pdswitch.model import ModelManifest

# Where a model lies and which of several equal devices serves it; what they are is known besides.
MODEL_PLACES = ("name", "path")
SPEC_PLACES = ("model", "visible_devices")
PLACE_VARIABLES = ("NVIDIA_VISIBLE_DEVICES",)


def identity(model: ModelManifest, spec: EngineSpec) -> dict[str, Any] | None:
    """Return what is measured and on what, wherever it lies; None if a GPU's kind is not known."""
    kinds = kinds_of(spec)
    if None in kinds:
        return None
    environment = json.dumps(_without(spec.environment, PLACE_VARIABLES), sort_keys=True)
    return {
        "model": _without(msgspec.to_builtins(model), MODEL_PLACES),
        "engine": _without(msgspec.to_builtins(spec), SPEC_PLACES)
        # A digest: it may hold what nobody else should read.
        | {"environment": hashlib.sha256(environment.encode()).hexdigest()},
        "devices": [cpu_name(), *kinds],
    }


def _without(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in values if name not in names}
