"""What a policy does to the clients of a server: vLLM's own, with the plug-in, over HTTP.

Starts `vllm serve` with SwitchingScheduler, sends concurrent streams with the openai client, a run
for every policy, in turn, and prints of each the median over its rounds: requests/s, time to the
first token, and from the step record how many steps were refills and how many were mixed.

    python benchmarks/bench_serve.py --model FOLDER --slots 256 --streams 512 -- \
        --load-format dummy --max-model-len 2048 --max-num-batched-tokens 16384

What follows `--` goes to the server as it is. A folder with a config and a tokenizer is enough
under `--load-format dummy`.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import msgspec
import numpy as np
import openai

from pdswitch.plugin.policy import Policy
from pdswitch.plugin.run import RunOrder
from pdswitch.record import decode_record

WORKFLOW = str(Path(__file__).resolve().parents[1] / "workflow")
START_TIMEOUT_S = 400
STOP_TIMEOUT_S = 60


class Round(NamedTuple):
    """One run as its clients and its record saw it."""

    requests_per_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    refill_steps: int
    mixed_steps: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder or name of the model")
    parser.add_argument("--slots", type=int, default=256, help="N")
    parser.add_argument("--streams", type=int, default=512, help="sent at once, a run")
    parser.add_argument("--mean-tokens", type=int, default=128, help="of prompts and of answers")
    parser.add_argument("--thresholds", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up")
    parser.add_argument("--output", type=Path, help="JSON, besides the table")
    parser.add_argument("server", nargs="*", metavar="ARGUMENT", help="of the server, after --")
    arguments = parser.parse_args()
    policies = {"mixed": Policy(kind="mixed")} | {
        f"k = {k}": Policy(kind="fixed", threshold=k) for k in arguments.thresholds
    }
    random = np.random.default_rng(0)
    prompts, answers = (
        np.minimum(random.geometric(1 / arguments.mean_tokens, arguments.streams), limit)
        for limit in [4 * arguments.mean_tokens, 6 * arguments.mean_tokens]
    )
    tokens = [random.integers(10, 200, length).tolist() for length in prompts]
    found: dict[str, list[Round]] = {name: [] for name in policies}
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder)
        server, url = start(arguments.model, arguments.slots, arguments.server, records)
        try:
            for number in range(arguments.rounds + 1):
                for name, policy in policies.items():
                    measured = asyncio.run(serve(url, policy, tokens, answers.tolist(), records))
                    if number:
                        found[name].append(measured)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(STOP_TIMEOUT_S)
    print(f"{'':10}" + "".join(f"{field:>16}" for field in Round._fields))
    for name, rounds in found.items():
        print(f"{name:10}" + "".join(f"{value:16.3f}" for value in np.median(rounds, axis=0)))
    if arguments.output:
        rows = {name: [each._asdict() for each in rounds] for name, rounds in found.items()}
        arguments.output.write_text(json.dumps(rows, indent=2))


def start(
    model: str, slots: int, further: list[str], records: Path
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server and wait until it answers; the process, and the address of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"pdswitch": {"policy": {"kind": "mixed"}, "record_folder": str(records)}}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--host", "127.0.0.1", "--port", str(port), "--model", model),
            *("--served-model-name", "model", "--max-num-seqs", str(slots)),
            *("--no-enable-prefix-caching", "--disable-uvicorn-access-log"),
            *("--scheduler-cls", "pdswitch.scheduler.SwitchingScheduler"),
            *("--additional-config", json.dumps(settings), *further),
        ],
        env=environment(),
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return process, f"http://127.0.0.1:{port}/v1"
        except OSError:
            time.sleep(0.5)
    process.kill()
    sys.exit("error: the server did not start; what it printed above says why")


def environment() -> dict[str, str]:
    """Ours, with the plug-in where the server's processes can import it."""
    path = os.pathsep.join(filter(None, [WORKFLOW, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "VLLM_NO_USAGE_STATS": "1"}


async def serve(
    url: str, policy: Policy, prompts: list[list[int]], answers: list[int], records: Path
) -> Round:
    """Send all requests at once as one run."""
    order = msgspec.json.encode(RunOrder(policy, len(prompts), "run")).decode()
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, timeout=600
    ) as client:
        begin = time.monotonic()
        first = await asyncio.gather(
            *(
                first_token(client, order, prompt, length)
                for prompt, length in zip(prompts, answers, strict=True)
            )
        )
        seconds = time.monotonic() - begin
    record = decode_record((records / "run").read_bytes())
    assert sorted(row.output_tokens for row in record.requests) == sorted(answers)
    refills = [step for step in record.steps if step.prefill_tokens > 0]
    ttft = np.quantile(np.array(first) - begin, [0.5, 0.95])
    mixed = sum(step.decode_requests > 0 for step in refills)
    return Round(len(prompts) / seconds, *ttft.tolist(), len(refills), mixed)


async def first_token(
    client: openai.AsyncOpenAI, order: str, prompt: list[int], length: int
) -> float:
    """Read a stream to its end; when its first token came."""
    chunks = await client.completions.create(
        model="model",
        prompt=prompt,
        max_tokens=length,
        temperature=0.0,
        stream=True,
        extra_body={"ignore_eos": True, "vllm_xargs": {"pdswitch": order}},
    )
    came = None
    async for _ in chunks:
        came = came or time.monotonic()
    assert came is not None
    return came


if __name__ == "__main__":
    main()
