"""Does it matter who starts an engine? Step times of one started by a shell and one by a job.

Two engines on one device, one started by a shell and one by a Snakemake job, serve the same decode
steps and the same run under `mixed` by turns, so that both see the same noise. Prints medians over
the rounds, and the median of the ratios to the engine that the shell started:

    python benchmarks/bench_environment.py --model results/MODEL/model.json \\
        --engine '{"n_slots": 16, "max_input_tokens": 64, "max_output_tokens": 128}'

`--variables` puts an engine with variables of its own in the job's place, for example the thread
variables that Snakemake sets. On a GPU give --engine a `gpu_memory_utilization` below one half.
"""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import msgspec
import numpy as np
import psutil

from pdswitch.engine.client import Engine, open_engine
from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.files import atomic_path
from pdswitch.model import ModelManifest
from pdswitch.plugin.policy import Policy
from pdswitch.record import decode_record

# What Snakemake sets for every job; a clean shell has none of them.
THREAD_VARIABLES = [
    *(f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "GOTO", "NUMEXPR")),
    "VECLIB_MAXIMUM_THREADS",
]
DECODE_STEPS = 50
DECODE_REPEATS = 3
POLL_S = 0.05
GREEDY = {"temperature": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.json of the model stage")
    parser.add_argument("--engine", required=True, help="EngineOptions as JSON")
    parser.add_argument("--requests", type=int, default=512, help="of the run under mixed")
    parser.add_argument("--mean-tokens", type=int, default=128, help="of prompts and of answers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--variables", type=json.loads, help="of the other engine, as JSON")
    parser.add_argument("--output", type=Path, help="JSON, besides the table")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments, arguments.serve)
        return
    other = "Snakemake job" if arguments.variables is None else "with variables"
    found: dict[str, list[dict[str, Any]]] = {"shell": [], other: []}
    with tempfile.TemporaryDirectory(prefix="pds-") as folder, contextlib.ExitStack() as stack:
        folders = {name: Path(folder) / name.replace(" ", "-") for name in found}
        processes = {}
        for name, own in folders.items():
            by_job = name == "Snakemake job"
            processes[name] = stack.enter_context(started(arguments, own, by_job, name == other))
            print(f"{name}: {(own / 'workers').read_text()}", flush=True)
        for number in range(arguments.rounds):
            for name in found if number % 2 else reversed(found):
                (folders[name] / "go").touch()
                found[name].append(json.loads(awaited(folders[name] / "found", processes[name])))
    print_table(found)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2))


@contextlib.contextmanager
def started(
    arguments: argparse.Namespace, folder: Path, by_job: bool, is_other: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a measuring process with an engine of its own, and end both."""
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
    environment["PDSWITCH_RUNTIME_DIR"] = f"{folder}/run"
    engine = json.loads(arguments.engine)
    if is_other:
        engine["environment"] = engine.get("environment", {}) | (arguments.variables or {})
    command = [sys.executable, __file__, "--model", str(arguments.model.resolve())]
    command += ["--engine", json.dumps(engine), "--requests", str(arguments.requests)]
    command += ["--mean-tokens", str(arguments.mean_tokens), "--serve", str(folder)]
    if by_job:
        # As the rules of the measured stages: all cores are the job's threads.
        script = shlex.join(command).replace("{", "{{").replace("}", "}}")
        Path(folder, "Snakefile").write_text(
            f"rule measure:\n    threads: workflow.cores\n    shell: {script!r}\n"
        )
        command = [sys.executable, "-m", "snakemake", "--cores", "all"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            awaited(folder / "workers", process)
            yield process
        finally:
            (folder / "stop").touch()
            process.wait()


def awaited(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait for a file, and take its content."""
    while not file.exists():
        if process.poll() is not None:
            sys.exit((file.parent / "log").read_text())
        time.sleep(POLL_S)
    text = file.read_text()
    if file.name == "found":
        file.unlink()
    return text


def serve(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure once whenever there is a file `go`, until there is one called `stop`."""
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    options = msgspec.json.decode(arguments.engine, type=EngineOptions)
    with open_engine(
        make_spec(options, model),
        idle_timeout_s=1,
        start_timeout_s=600,
        log_folder=folder / "logs",
        say=print,
    ) as engine:
        host = psutil.Process(engine.facts["pid"])
        write(folder / "workers", engine.facts["workers"])
        while not (folder / "stop").exists():
            if (folder / "go").exists():
                (folder / "go").unlink()
                write(folder / "found", measure(engine, arguments, options, model))
            time.sleep(POLL_S)
    host.wait(60)


def write(file: Path, content: Any) -> None:
    with atomic_path(file) as aside:
        aside.write_text(json.dumps(content))


def measure(
    engine: Engine, arguments: argparse.Namespace, options: EngineOptions, model: ModelManifest
) -> dict[str, float]:
    """Return median step times in ms, and requests/s."""
    sizes = sorted({1, options.n_slots // 4, options.n_slots})
    found = {f"decode of {size}, ms": decode_ms(engine, size) for size in sizes}
    return found | mixed_run(engine, arguments, options, model)


def decode_ms(engine: Engine, size: int) -> float:
    requests = [Request(f"r{i}", [5 + i] * 16, DECODE_STEPS + 1, True) for i in range(size)]
    at_once = Policy(kind="fixed", threshold=engine.facts["n_slots"])
    steps = [
        step.duration_s
        for _ in range(DECODE_REPEATS)
        for step in run(engine, at_once, requests).steps
        if step.decode_requests == size
    ]
    return 1e3 * float(np.median(steps))


def mixed_run(
    engine: Engine, arguments: argparse.Namespace, options: EngineOptions, model: ModelManifest
) -> dict[str, float]:
    random = np.random.default_rng(0)
    prompts, answers = (
        np.clip(random.geometric(1 / arguments.mean_tokens, arguments.requests), 1, limit)
        for limit in (options.max_input_tokens, options.max_output_tokens)
    )
    requests = [
        Request(f"r{i}", random.integers(0, model.vocabulary_size, tokens).tolist(), int(n), True)
        for i, (tokens, n) in enumerate(zip(prompts, answers, strict=True))
    ]
    record = run(engine, Policy(kind="mixed"), requests)
    mixed = [s.duration_s for s in record.steps if s.prefill_tokens and s.decode_requests]
    return {
        "mixed step, ms": 1e3 * float(np.median(mixed)),
        "mixed, requests/s": len(requests) / record.steps[-1].done_s,
    }


def run(engine: Engine, policy: Policy, requests: list[Request]) -> Any:
    return decode_record(engine.run(RunCommand(policy, requests, GREEDY), lambda _: None).record)


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    for name in found["shell"][0]:
        print(name)
        usual = [one[name] for one in found["shell"]]
        for starter, rounds in found.items():
            values = [one[name] for one in rounds]
            ratio = np.median(np.divide(values, usual))
            print(
                f"  {starter:16}{np.median(values):10.2f}   ratio {ratio:.3f}   "
                f"rounds {' '.join(f'{value:.2f}' for value in values)}"
            )


if __name__ == "__main__":
    main()
