"""What every job on the engine shares: its arguments, the store, and the engine they ask for."""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable
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
from pdswitch.engine.identity import identity
from pdswitch.engine.spec import EngineSpec
from pdswitch.model import ModelManifest
from pdswitch.stages.entry import stage
from pdswitch.stages.store import add_store_arguments, has_store, stored_result


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a job's command line what says which engine it wants and how to sample."""
    parser.add_argument("--model", type=Path, required=True, help="model.json of the model stage")
    parser.add_argument(
        "--engine", type=_json_as(EngineOptions), required=True, help="engine options, as JSON"
    )
    # How long the engine is kept, as opposed to what it is; the workflow sets the variables.
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
    add_store_arguments(parser)


def engine_job(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap the main function of a script that measures, like `stage`.

    Where the engine dies at work, the job is done once more with a new one. Other errors would
    come again, and end it.
    """

    @stage
    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except EngineStartError:
            raise
        except EngineGoneError as error:
            _say(f"{error}\nonce more, with a new engine")
            main()

    return run


def run_job(
    script: str, arguments: argparse.Namespace, outputs: list[Path], serve: Callable[[Engine], None]
) -> None:
    """Put a stage's outputs back if they were stored, or measure and store them.

    Args:
        script: the stage's `__file__`.
        arguments: its command line.
        outputs: the files it writes; the last one says that the result is whole.
        serve: measures on an open engine and writes the outputs.

    Raises:
        EngineError: if the engine cannot be started, or is not what was asked for.
    """
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    spec = make_spec(arguments.engine, model)
    measured_on = identity(spec) if has_store(arguments) else None
    if has_store(arguments) and measured_on is None:
        _say("nothing is stored or put back: nvidia-smi does not say which GPUs there are")
        arguments.store = None
    stored = stored_result(Path(script), arguments, outputs, _say, measured_on=measured_on)
    # Another workflow may have measured the same while this job waited for the device.
    if not stored.restore() and _measured(arguments, spec, serve, lambda: not stored.restore()):
        stored.save()


def _measured(
    arguments: argparse.Namespace,
    spec: EngineSpec,
    serve: Callable[[Engine], None],
    still_wanted: Callable[[], bool],
) -> bool:
    with open_engine(
        spec,
        idle_timeout_s=arguments.idle_timeout_s,
        start_timeout_s=arguments.start_timeout_s,
        run_timeout_s=arguments.run_timeout_s,
        log_folder=arguments.engine_logs,
        say=_say,
        still_wanted=still_wanted,
    ) as engine:
        if engine is None:
            return False
        if reasons := departures(engine.facts):
            raise EngineError("; ".join(reasons))
        serve(engine)
        return True


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
