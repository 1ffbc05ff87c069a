"""vLLM's own server with the plug-in, asked by the openai client."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec
import openai
import psutil
import pytest

from pdswitch.plugin.policy import Policy, ThresholdTable
from pdswitch.plugin.record import RunRecord
from pdswitch.plugin.run import RunOrder
from pdswitch.record import decode_record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

N_SLOTS = 8
REQUESTS = 32
LONG_ANSWER = 600
START_TIMEOUT_S = 240


class Server:
    """A running server: where it listens, and where it writes the records of runs."""

    def __init__(self, url: str, records: Path, log: Path) -> None:
        self.url, self.records, self.log = url, records, log

    def record(self, name: str) -> RunRecord:
        return decode_record((self.records / name).read_bytes())


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory, command_environment):
    folder = tmp_path_factory.mktemp("serve")
    records, log = folder / "records", folder / "server.log"
    records.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"kind": "fixed", "threshold": N_SLOTS, "drain": "strict"}
    config = {"pdswitch": {"policy": own}}
    config["pdswitch"] |= {"allow_orders": True, "record_folder": str(records)}
    command = f"""
        -m vllm.entrypoints.openai.api_server --host 127.0.0.1 --port {port}
        --model {tiny_model} --served-model-name tiny --dtype float32
        --max-model-len {2 * LONG_ANSWER} --max-num-seqs {N_SLOTS}
        --num-gpu-blocks-override 160 --kv-cache-memory-bytes {1 << 28}
        --enforce-eager --no-enable-prefix-caching --disable-uvicorn-access-log
        --scheduler-cls pdswitch.scheduler.SwitchingScheduler --additional-config
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command.split(), json.dumps(config)],
            env=command_environment | {"VLLM_NO_USAGE_STATS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_health(f"http://127.0.0.1:{port}/health", process, log)
        yield Server(f"http://127.0.0.1:{port}/v1", records, log)
    finally:
        # By their start times: once the server has been waited for, its id may be another's.
        running = process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True) if running else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            for left in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()


def await_health(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")


def order_for(policy: Policy, requests: int, record: str | None) -> str:
    """The order of a run as it travels over HTTP."""
    return msgspec.json.encode(RunOrder(policy, requests, record)).decode()


async def stream(client: openai.AsyncOpenAI, place: int, order: str | None) -> int:
    """Ask for a completion as a stream; how many tokens came."""
    extra = {"ignore_eos": True} | ({"vllm_xargs": {"pdswitch": order}} if order else {})
    chunks = await client.completions.create(
        model="tiny",
        prompt=[1 + place, *range(2, 12 + place)],
        max_tokens=answer_tokens(place),
        temperature=0.0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extra,
    )
    tokens = 0
    async for chunk in chunks:
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
    return tokens


def answer_tokens(place: int) -> int:
    return 4 + (7 * place) % 23


def ask_all(server: Server, order: str | None) -> list[int]:
    """Send all requests at once; the tokens of each."""

    async def ask() -> list[int]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(stream(client, i, order) for i in range(REQUESTS)))

    return asyncio.run(ask())


EXPECTED = [answer_tokens(i) for i in range(REQUESTS)]


def mixed_steps(record: RunRecord) -> int:
    return sum(step.prefill_tokens > 0 and step.decode_requests > 0 for step in record.steps)


def test_streams_of_a_run_keep_its_phases_apart(server):
    order = order_for(Policy(kind="fixed", threshold=4), REQUESTS, "fixed.msgpack")
    assert ask_all(server, order) == EXPECTED
    record = server.record("fixed.msgpack")
    assert sorted(row.output_tokens for row in record.requests) == sorted(EXPECTED)
    assert mixed_steps(record) == 0
    assert {step.threshold for step in record.steps} == {4}
    assert max(step.running for step in record.steps) == N_SLOTS


def test_the_policy_changes_from_run_to_run_of_one_server(server):
    table = ThresholdTable([0.001], [1, 5])
    policies = {
        "mixed.msgpack": Policy(kind="mixed"),
        "adaptive.msgpack": Policy(
            kind="adaptive", table=table, update_interval=8, initial_probability=0.0005
        ),
    }
    for name, policy in policies.items():
        assert ask_all(server, order_for(policy, REQUESTS, name)) == EXPECTED
    assert mixed_steps(server.record("mixed.msgpack")) > 0
    adaptive = server.record("adaptive.msgpack")
    assert mixed_steps(adaptive) == 0
    assert {step.threshold for step in adaptive.steps} == {1, 5}
    assert adaptive.history[-1].threshold == 5


def seconds_spent(server: Server, what: str) -> float:
    """The sum of one of the server's own histograms of times, over all requests so far."""
    name = f"vllm:request_{what}_time_seconds_sum"
    with urllib.request.urlopen(f"{server.url.removesuffix('/v1')}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def share_queued(server: Server) -> float:
    """Seconds that 15 short answers queue for each second that a long one among them decodes."""
    queued, decoding = seconds_spent(server, "queue"), seconds_spent(server, "decode")

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            completions = (
                client.completions.create(
                    model="tiny",
                    prompt=[1, 2, 3],
                    max_tokens=LONG_ANSWER if place == 3 else 4,
                    extra_body={"ignore_eos": True},
                )
                for place in range(2 * N_SLOTS)
            )
            await asyncio.gather(*completions)

    asyncio.run(ask())
    return (seconds_spent(server, "queue") - queued) / (seconds_spent(server, "decode") - decoding)


def test_without_an_order_the_server_s_own_policy_serves(server):
    assert ask_all(server, None) == EXPECTED
    # `mixed` sends the short answers through the other seven slots; this policy waits for eight,
    # so all that came too late for the long one's refill queue as long as it decodes. On two busy
    # cores vLLM may hear of them only when the long one has ended, under its own scheduler too:
    # then nobody has queued, and we ask again.
    assert any(share_queued(server) > 3 for _ in range(15))


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("nonsense", "is no order of a run"),
        ('{"policy": {"kind": "fixed", "threshold": 9}}', "threshold 9 exceeds the 8 slots"),
        ('{"policy": {"kind": "mixed"}, "requests": 1000000000}', "at most 10000 requests"),
        (
            '{"policy": {"estimator": "window", "window": 9223372036854775808}}',
            "window must be from 1 to 100000",
        ),
        ('{"policy": {}, "record_path": "a\\u0000b"}', "record_path is no path"),
        (
            '{"policy": {"initial_probability": 1e-20, "smoothing": 1}}',
            "initial_probability must be from 1e-09 to 1",
        ),
        (
            '{"policy": {"kind": "mixed"}, "record_path": "/etc/passwd"}',
            "record_path is the name of a file",
        ),
    ],
)
def test_a_bad_order_fails_its_own_request_and_the_log_says_why(server, order, reason):
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    with client, pytest.raises(openai.InternalServerError):
        client.completions.create(
            model="tiny",
            prompt=[1, 2],
            max_tokens=3,
            extra_body={"vllm_xargs": {"pdswitch": order}},
        )
    assert reason in server.log.read_text()
    assert ask_all(server, None) == EXPECTED
