"""Check the step record against the device's own clock.

Serves the runs of a profile (made of one kind of step each) and some that switch, with events
recorded on the device around every step. Writes steps.parquet, agreement.json and a figure:

    python benchmarks/step_record.py --output FOLDER \\
        --model results/MODEL/model.json --engine '{"n_slots": 256, …}'
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import msgspec
import numpy as np
import pandas as pd

from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.engine.device_clock import EXTENSION
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.engine.vllm_engine import VllmEngine
from pdswitch.figures import step_record
from pdswitch.figures.save import save_figure
from pdswitch.files import write_json, write_parquet
from pdswitch.model import ModelManifest
from pdswitch.plugin.policy import Policy
from pdswitch.profiling.agreement import agreement, join_device_clock
from pdswitch.profiling.design import plan
from pdswitch.profiling.fit import fit_steps
from pdswitch.record import decode_record

GREEDY = {"temperature": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of the model stage")
    parser.add_argument("--engine", required=True, help="EngineOptions as JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--prefill-samples", type=int, default=60)
    parser.add_argument("--decode-repeats", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=16384, help="largest prefill")
    parser.add_argument("--thresholds", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--requests", type=int, default=768, help="of each switching run")
    parser.add_argument("--mean-tokens", type=int, default=128, help="of prompts and of answers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    options = msgspec.json.decode(arguments.engine, type=EngineOptions)
    spec = make_spec(options, model)
    extended = {**spec.vllm_options, "worker_extension_cls": EXTENSION}
    engine = VllmEngine(msgspec.structs.replace(spec, vllm_options=extended), print)
    random = np.random.default_rng(arguments.seed)

    planned = plan(
        arguments.prefill_samples,
        arguments.decode_repeats,
        spec.n_slots,
        arguments.max_tokens,
        spec.max_model_len,
        arguments.seed,
    )
    at_once = Policy(kind="fixed", threshold=spec.n_slots)
    pure = []
    for number, run in enumerate(planned):
        lengths = [run.output_tokens] * len(run.prompt_lengths)
        wanted = make_requests(run.prompt_lengths, lengths, model.vocabulary_size, random)
        steps, _ = serve(engine, at_once, wanted)
        pure.append(steps.assign(run=number, kind_of_run=run.kind))

    cycles = []
    prompts, answers = (
        np.clip(random.geometric(1 / arguments.mean_tokens, arguments.requests), 1, limit)
        for limit in (options.max_input_tokens, options.max_output_tokens)
    )
    policies = [Policy(kind="fixed", threshold=k) for k in arguments.thresholds]
    for number, policy in enumerate([*policies, Policy(kind="mixed")]):
        wanted = make_requests(prompts.tolist(), answers.tolist(), model.vocabulary_size, random)
        steps, wall_s = serve(engine, policy, wanted)
        label = "mixed" if policy.kind == "mixed" else f"k={policy.threshold}"
        recorded, device = steps["duration_s"].sum(), steps["device_s"].sum()
        print(
            f"{label}: {wall_s:.2f} s by the clock outside, {recorded:.2f} s recorded, "
            f"{device:.2f} s on the device, which waited {steps['device_idle_s'].sum():.2f} s"
        )
        cycles.append(steps.assign(run=len(planned) + number, kind_of_run=label))
    facts = engine.describe()
    engine.shutdown()

    pure_steps, cycle_steps = pd.concat(pure), pd.concat(cycles)
    found = {
        "engine": facts,
        "pure": agreement(pure_steps),
        **{label: agreement(part) for label, part in cycle_steps.groupby("kind_of_run")},
        "fit": fit_steps(pure_steps.assign(kind=pure_steps["kind_of_run"]), spec.n_slots),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_parquet(arguments.output / "steps.parquet", pd.concat([pure_steps, cycle_steps]))
    write_json(arguments.output / "agreement.json", found)
    figure = step_record.draw(facts, pure_steps, cycle_steps)
    save_figure(figure, arguments.output / "step_record")
    for label in ("pure", *cycle_steps["kind_of_run"].unique()):
        print(f"\n{label}\n{pd.DataFrame(found[label]).to_string(index=False)}")


def make_requests(
    prompts: list[int], answers: list[int], vocabulary_size: int, random: np.random.Generator
) -> list[Request]:
    return [
        Request(f"r{i}", random.integers(0, vocabulary_size, prompt).tolist(), answer, True)
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


def serve(engine: VllmEngine, policy: Policy, wanted: list[Request]) -> tuple[pd.DataFrame, float]:
    """Serve a run under both clocks; also how long it took seen from outside."""
    engine.call_worker("start_device_clock")
    started = time.monotonic()
    result = engine.run(RunCommand(policy, wanted, GREEDY), lambda progress: None)
    wall_s = time.monotonic() - started
    device = pd.DataFrame(engine.call_worker("stop_device_clock"))
    return join_device_clock(decode_record(result.record).steps_frame(), device), wall_s


if __name__ == "__main__":
    main()
