"""The arguments that every job on the engine shares, and the engine they ask for."""

import argparse
import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from pdswitch.engine.client import (
    RUN_TIMEOUT_S,
    Engine,
    EngineError,
    EngineGoneError,
    EngineStartError,
    open_engine,
)
from pdswitch.engine.compliance import departures
from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.model import ModelManifest
from pdswitch.stage import stage


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a job's command line what says which engine it wants and how to sample."""
    parser.add_argument("--model", type=Path, required=True, help="model.json of the model stage")
    parser.add_argument(
        "--engine", type=_json_as(EngineOptions), required=True, help="engine options, as JSON"
    )
    # How the engine is kept, as opposed to what it is; the workflow sets the variables.
    parser.add_argument(
        "--idle-timeout-s",
        type=float,
        default=float(os.environ.get("PDSWITCH_IDLE_TIMEOUT_S", "600")),
        help="an engine without work leaves after this time",
    )
    parser.add_argument(
        "--start-timeout-s",
        type=float,
        default=float(os.environ.get("PDSWITCH_START_TIMEOUT_S", "1800")),
        help="an engine that is not ready by then is given up",
    )
    parser.add_argument(
        "--run-timeout-s",
        type=float,
        default=float(os.environ.get("PDSWITCH_RUN_TIMEOUT_S", RUN_TIMEOUT_S)),
        help="a run that takes longer is given up",
    )
    parser.add_argument("--engine-logs", type=Path, default=Path("logs/engine"))
    parser.add_argument(
        "--sampling", type=json.loads, default={"temperature": 0.0}, help="SamplingParams, as JSON"
    )


def engine_job(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap the main function of a script that measures, like `stage`.

    Where the engine dies at work, the job is done once more with a new one. Other errors would
    come again, and end it.
    """

    @stage
    @functools.wraps(main)
    def run() -> None:
        try:
            try:
                main()
            except EngineStartError:
                raise
            except EngineGoneError as error:
                _say(f"{error}\nonce more, with a new engine")
                main()
        except (EngineError, ModuleNotFoundError) as error:
            sys.exit(f"error: {error}")

    return run


@contextlib.contextmanager
def engine_of(arguments: argparse.Namespace) -> Iterator[Engine]:
    """Open the engine that a job's arguments ask for.

    Raises:
        EngineError: if it cannot be started, or is not what was asked for.
    """
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    with open_engine(
        make_spec(arguments.engine, model),
        idle_timeout_s=arguments.idle_timeout_s,
        start_timeout_s=arguments.start_timeout_s,
        run_timeout_s=arguments.run_timeout_s,
        log_folder=arguments.engine_logs,
        say=_say,
    ) as engine:
        if reasons := departures(engine.facts):
            raise EngineError("; ".join(reasons))
        yield engine


def _say(line: str) -> None:
    # Above the progress bar, if there is one.
    tqdm.write(line, file=sys.stderr)


def _json_as(kind: Any) -> Any:
    def parse(text: str) -> Any:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse
