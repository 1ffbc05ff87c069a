"""The arguments that every job on the engine shares, and the engine they ask for."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pdswitch.engine.client import Engine, EngineError, open_engine
from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.model import ModelManifest


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the engine is kept, as opposed to what it is: no result depends on it."""

    idle_timeout_s: float = 600.0
    start_timeout_s: float = 1800.0
    log_folder: str = "logs/engine"


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --engine, --service and --sampling to a job's command line."""
    parser.add_argument("--model", type=Path, required=True, help="model.json of the model stage")
    parser.add_argument(
        "--engine", type=_json_as(EngineOptions), required=True, help="engine options, as JSON"
    )
    parser.add_argument(
        "--service", type=_json_as(Service), default=Service(), help="engine service, as JSON"
    )
    parser.add_argument(
        "--sampling", type=json.loads, default={"temperature": 0.0}, help="SamplingParams, as JSON"
    )


@contextlib.contextmanager
def engine_of(arguments: argparse.Namespace) -> Iterator[Engine]:
    """Open the engine that a job's arguments ask for; an engine error ends the job in a sentence."""
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    service: Service = arguments.service
    try:
        with open_engine(
            make_spec(arguments.engine, model),
            idle_timeout_s=service.idle_timeout_s,
            start_timeout_s=service.start_timeout_s,
            log_folder=Path(service.log_folder),
            say=_say,
        ) as engine:
            yield engine
    except (EngineError, ValueError) as error:
        sys.exit(f"error: {error}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _json_as(kind: Any) -> Any:
    def parse(text: str) -> Any:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse
