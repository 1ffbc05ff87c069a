"""Does `mixed` under SwitchingScheduler cost anything beside vLLM's own scheduler class?

Two engines of the same settings on one device, one with vLLM's class and one with ours, serve the
same requests in turn; ours also as a measured run, which records its steps. Prints the seconds of
every round and the medians of the ratios to vLLM's own class:

    python benchmarks/bench_mixed.py --model results/MODEL/model.json --engine '{"n_slots": 256, …}'

Both engines hold device memory at once: give --engine a `gpu_memory_utilization` below one half.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import msgspec
import numpy as np

from pdswitch.engine.configure import EngineOptions, make_spec
from pdswitch.engine.vllm_engine import llm_arguments, prepare_process
from pdswitch.model import ModelManifest

OWN, PLUG_IN, RECORDED = "vLLM's own class", "the plug-in", "the plug-in, recorded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of the model stage")
    parser.add_argument("--engine", required=True, help="EngineOptions as JSON")
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--mean-tokens", type=int, default=128, help="of prompts and of answers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=Path, help="JSON, besides the table")
    arguments = parser.parse_args()
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    options = msgspec.json.decode(arguments.engine, type=EngineOptions)
    spec = make_spec(options, model)
    prepare_process(spec)
    from vllm import LLM

    ours = llm_arguments(spec)
    engines = {PLUG_IN: LLM(**ours), OWN: LLM(**(ours | {"scheduler_cls": None}))}
    engines[RECORDED] = engines[PLUG_IN]
    random = np.random.default_rng(0)
    prompts, answers = (
        np.clip(random.geometric(1 / arguments.mean_tokens, arguments.requests), 1, limit)
        for limit in (options.max_input_tokens, options.max_output_tokens)
    )
    tokens = [random.integers(0, model.vocabulary_size, n).tolist() for n in prompts]
    seconds: dict[str, list[float]] = {name: [] for name in (OWN, PLUG_IN, RECORDED)}
    record = Path(tempfile.mkdtemp()) / "record"
    for number in range(arguments.rounds + 1):
        for name in list(seconds) if number % 2 else list(seconds)[::-1]:
            order = {"policy": {}, "requests": len(tokens), "record_path": str(record)}
            asked = order if name == RECORDED else None
            taken = serve(engines[name], tokens, answers.tolist(), asked)
            if number:  # the first round warms up
                seconds[name].append(taken)
    print(f"{'':24}{'seconds':>10}{'requests/s':>12}{'ratio':>8}   rounds")
    for name, values in seconds.items():
        ratio = np.median(np.divide(values, seconds[OWN]))
        middle = np.median(values)
        rounds = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:24}{middle:10.2f}{len(tokens) / middle:12.2f}{ratio:8.3f}   {rounds}")
    if arguments.output:
        arguments.output.write_text(json.dumps(seconds, indent=2))


def serve(
    engine: Any, tokens: list[list[int]], answers: list[int], order: dict[str, Any] | None
) -> float:
    """Seconds from the first request's arrival to the last one's end."""
    from vllm import SamplingParams

    params = [
        SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False)
        for n in answers
    ]
    if order:
        params[0].extra_args = {"pdswitch": order}
    prompts = [{"prompt_token_ids": part} for part in tokens]
    started = time.monotonic()
    outputs = engine.generate(prompts, params, use_tqdm=False)
    taken = time.monotonic() - started
    assert sum(len(output.outputs[0].token_ids) for output in outputs) == sum(answers)
    return taken


if __name__ == "__main__":
    main()
