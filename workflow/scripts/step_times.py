"""Measure step times on the engine: prefill over a range of tokens, decode over batch sizes."""

import argparse
import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from tqdm import tqdm

from pdswitch.engine.client import Engine
from pdswitch.engine.job import add_engine_arguments, engine_job, run_job
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.files import write_json, write_records
from pdswitch.model import ModelManifest
from pdswitch.plugin.policy import Policy
from pdswitch.profiling.design import PlannedRun, plan
from pdswitch.record import decode_record

TYPICAL_PROMPT_TOKENS = 256


@engine_job
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_engine_arguments(parser)
    parser.add_argument(
        "--options",
        type=json.loads,
        required=True,
        help="num_prefill_samples, num_decode_repeats, max_tokens, seed; as JSON",
    )
    parser.add_argument("--steps", type=Path, required=True, help="output: steps.parquet")
    parser.add_argument("--run", type=Path, required=True, help="output: run.json")
    arguments = parser.parse_args()
    options = arguments.options
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)

    def serve(engine: Engine) -> None:
        frames, conditions = [], []
        n_slots, budget = engine.facts["n_slots"], engine.facts["max_num_batched_tokens"]
        runs = plan(
            options["num_prefill_samples"],
            options["num_decode_repeats"],
            n_slots,
            options["max_tokens"] or min(TYPICAL_PROMPT_TOKENS * n_slots, budget),
            engine.facts["max_model_len"],
            options["seed"],
        )
        random = np.random.default_rng(options["seed"])
        # All slots are free at the start, so that a run's requests enter in one refill.
        policy = Policy(kind="fixed", threshold=n_slots)
        for number, run in enumerate(tqdm(runs, desc="profile", unit="run", mininterval=0.5)):
            requests = random_requests(run, model.vocabulary_size, random)
            command = RunCommand(policy, requests, arguments.sampling)
            result = engine.run(command, lambda _: None)
            frame = decode_record(result.record).steps_frame()
            frames.append(frame.assign(run=number, kind=run.kind, repeat=run.repeat))
            conditions.append(result.conditions)
        facts = {
            "engine": engine.facts,
            "runs": len(runs),
            "conditions": {
                "before": conditions[0]["before"],
                "after": conditions[-1]["after"],
                "self_check": conditions[0]["self_check"],
            },
        }
        write_records(arguments.steps, pd.concat(frames, ignore_index=True))
        write_json(arguments.run, facts)

    run_job(__file__, arguments, [arguments.steps, arguments.run], serve)


def random_requests(
    run: PlannedRun, vocabulary_size: int, random: np.random.Generator
) -> list[Request]:
    """Return a planned run's requests: random token ids, a fixed number of output tokens."""
    return [
        Request(
            f"profile-{i}",
            random.integers(0, vocabulary_size, tokens).tolist(),
            run.output_tokens,
            True,
        )
        for i, tokens in enumerate(run.prompt_lengths)
    ]


if __name__ == "__main__":
    main()
