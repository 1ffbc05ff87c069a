"""The hub's client against a small hub on this machine: no network is needed."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hub_server import Hub, Repository, running_hub
from pdswitch.datasets.records import read_records

FIXTURES = Path(__file__).parents[1] / "support/fixtures/datasets"

# The client reads its environment when it is imported: each question runs in its own process.
ASK = """
import json, sys
from collections import Counter
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.sample import DatasetError, Skipped
answers = []
for name, options, count in json.loads(sys.stdin.read()):
    try:
        outcomes, revision = load(dataset_options(name, options))
        skipped = Counter()
        ids = []
        for outcome in outcomes:
            if isinstance(outcome, Skipped):
                skipped[outcome.reason] += 1
            else:
                ids.append(outcome.source_id)
            if len(ids) == count:
                break
        answers.append({"revision": revision, "ids": ids, "skipped": skipped})
    except DatasetError as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


def parquet(rows, row_group_size=None):
    """Return a Parquet file as bytes."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file, row_group_size=row_group_size)
    return file.getvalue()


def conversations(shard, count):
    """Yield conversations that compress badly, so that sizes mean something."""
    for number in range(count):
        turns = [
            {"content": f"{number} {os.urandom(150).hex()}", "role": "user"},
            {"content": "Yes.", "role": "assistant"},
        ]
        yield {"conversation_id": f"{shard}-{number}", "conversation": turns}


@pytest.fixture(scope="module")
def hub():
    with running_hub() as hub:
        v1 = io.BytesIO()
        with zipfile.ZipFile(v1, "w") as archive:
            for file in (FIXTURES / "longbench_v1/data").iterdir():
                archive.write(file, f"data/{file.name}")
        hub.repositories |= {
            "tatsu-lab/alpaca": Repository(
                {
                    "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n# Alpaca\n",
                    "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet": parquet(
                        read_records(FIXTURES / "alpaca/hub_rows.jsonl")
                    ),
                }
            ),
            "lmsys/lmsys-chat-1m": Repository(
                {
                    f"data/train-0000{shard}-of-00006-4feeb3f83346a0e9.parquet": parquet(
                        conversations(shard, 3000), row_group_size=500
                    )
                    for shard in range(6)
                },
                gated=True,
            ),
            "Qwen/ProcessBench": Repository(
                {
                    f"{split}.json": (FIXTURES / f"processbench/{split}.json").read_bytes()
                    for split in ("gsm8k", "omnimath")
                }
            ),
            "THUDM/LongBench-v2": Repository(
                {"data.json": (FIXTURES / "longbench/data.json").read_bytes()}
            ),
            "THUDM/LongBench": Repository(
                {"LongBench.py": b"raise SystemExit", "data.zip": v1.getvalue()}
            ),
            "someone/mixed": Repository(
                {
                    "README.md": b"# Prompts",
                    "a[1].jsonl": b'{"prompt": "a0"}\n{broken\n{"prompt": "a1"}\n',
                    "b.csv": "prompt,more\nb0,1\nb\xe91,2\nb2,3\n".encode("latin-1"),
                    "c.parquet": parquet([{"prompt": "c0", "other": {"k": 1}}]),
                    "d.json": b'[{"prompt": "d0"}, 7]',
                    "e.jsonl.gz": gzip.compress(b'{"prompt": "e0"}\n'),
                    "f.jsonl": b"",
                }
            ),
            "someone/broken": Repository({"data/train-00000-of-00001.parquet": b"PAR1 no more"}),
        }
        yield hub


def ask(hub: Hub, home: Path, questions: list, **environment: str) -> list:
    """Return what the datasets answer in a process that knows this hub only."""
    run = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2] / "workflow"),
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(home),
            "HOME": str(home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        | environment,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_the_hub_s_datasets_are_read_and_their_commit_is_kept(hub, tmp_path):
    alpaca, bench, v2, v1, pinned = ask(
        hub,
        tmp_path,
        [
            ("alpaca", {}, 9),
            ("processbench", {"processbench_split": "omni-math"}, 9),
            ("longbench", {}, 2),
            ("longbench_v1", {"tasks": ["lcc"]}, 9),
            ("alpaca", {"revision": hub.repositories["tatsu-lab/alpaca"].commit}, 1),
        ],
    )
    assert alpaca == {
        "revision": hub.repositories["tatsu-lab/alpaca"].commit,
        "ids": ["alpaca-0", "alpaca-1"],
        "skipped": {"text without ### Response:": 1},
    }
    assert bench["ids"] == ["processbench-omnimath-0"]
    assert v2["ids"] == ["longbench-q2", "longbench-q4"]
    assert v1["ids"] == ["longbench_v1-lcc-lcc0"]
    assert v1["revision"] == hub.repositories["THUDM/LongBench"].commit
    assert pinned["revision"] == alpaca["revision"]


def test_what_the_hub_refuses_is_explained(hub, tmp_path):
    gated, unknown, revision, broken = ask(
        hub,
        tmp_path,
        [
            ("lmsys", {}, 1),
            ("alpaca", {"source": "nobody/nothing"}, 1),
            ("alpaca", {"revision": "v9"}, 1),
            ("custom", {"custom_prompts": "someone/broken"}, 1),
        ],
    )
    assert gated["error"].startswith("lmsys/lmsys-chat-1m is gated: accept its terms at https://")
    assert "set HF_TOKEN to a token of that account" in gated["error"]
    assert "nobody/nothing is neither a local path nor a dataset on the hub" in unknown["error"]
    assert revision["error"] == "tatsu-lab/alpaca has no such revision; check revision"
    assert broken["error"] == (
        "someone/broken/data/train-00000-of-00001.parquet is no whole Parquet file; fetch it again"
    )
    assert not [a for a in (gated, unknown, revision, broken) if "\n" in a["error"]]


def test_a_repository_of_files_follows_the_rules_of_files(hub, tmp_path):
    options = {"custom_prompts": "someone/mixed"}
    (answer,) = ask(hub, tmp_path, [("custom", options, 99)])
    assert answer["ids"] == [f"custom-{place}" for place in (0, 2, 3, 5, 6, 7, 9)]
    assert answer["skipped"] == {
        "line that is not JSON": 1,
        "text that is not valid Unicode": 1,
        "record that is no object": 1,
        "file without records": 1,
    }
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, content in hub.repositories["someone/mixed"].files.items():
        (folder / name).write_bytes(content)
    (copy,) = ask(hub, tmp_path, [("custom", {"custom_prompts": str(folder)}, 99)])
    assert copy == answer | {"revision": None}


def test_lmsys_reads_as_many_shards_as_it_needs(hub, tmp_path):
    hub.bytes_sent.clear()
    plain, more = ask(hub, tmp_path, [("lmsys", {}, 600), ("lmsys", {}, 3200)], HF_TOKEN=hub.token)
    assert plain["ids"] == [f"lmsys-0-{number}" for number in range(600)]
    assert more["ids"][-1] == "lmsys-1-199"
    sizes = hub.repositories["lmsys/lmsys-chat-1m"].files
    read = {shard for shard in sizes if hub.bytes_sent.get(shard, 0) > 0.02 * len(sizes[shard])}
    assert {shard.split("-")[1] for shard in read} == {"00000", "00001"}


def test_lmsys_shuffled_begins_in_a_shard_that_the_seed_chooses(hub, tmp_path):
    first, again, other = ask(
        hub,
        tmp_path,
        [("lmsys", {"shuffle": True, "seed": seed}, 20) for seed in (1, 1, 2)],
        HF_TOKEN=hub.token,
    )
    assert first == again
    assert set(first["ids"]) != set(other["ids"])


def test_offline_the_hub_s_cache_is_read_and_nothing_else(hub, tmp_path):
    questions = [("longbench", {}, 1), ("alpaca", {}, 1)]
    online = ask(hub, tmp_path, questions)
    hub.bytes_sent.clear()
    offline = ask(hub, tmp_path, questions, HF_HUB_OFFLINE="1")
    assert not hub.bytes_sent
    # Read in whole files, LongBench is in the cache; streamed, alpaca is not.
    assert offline[0] == online[0]
    assert (
        "HF_HUB_OFFLINE is set and the hub's cache does not hold tatsu-lab/alpaca"
        in (offline[1]["error"])
    )


def test_without_a_network_the_source_is_named(hub, tmp_path):
    (answer,) = ask(hub, tmp_path, [("alpaca", {}, 1)], HF_ENDPOINT="http://127.0.0.1:9")
    assert answer["error"].startswith("tatsu-lab/alpaca cannot be read (")
    assert "the network, or set its source to a local copy" in answer["error"]
