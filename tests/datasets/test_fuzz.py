"""Made-up records of every kind: each ends as a prompt or under a reason, and nothing is raised.

`PDSWITCH_FUZZED_RECORDS` says how many records there are in all; by default a few.
"""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdswitch.datasets.encoding import Encoder
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options, option_class
from pdswitch.datasets.prompts import limits_of, write_prompts
from pdswitch.datasets.sample import DatasetError
from tokenizer_fixture import make_tokenizer

RECORDS_AT_A_TIME = 5
FUZZED_RECORDS = int(os.environ.get("PDSWITCH_FUZZED_RECORDS", "1200"))
# Refuses what many templates refuse, in the ways in which they do.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if 'tool_calls' in message %}{{ message['tool_calls'][0]['name'] + 1 }}{% endif %}"
    "{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
)
GOOD = {
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3", "text": None},
    "custom": {
        "prompt": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
        "output": "A",
        "id": "one",
    },
    "lmsys": {
        "conversation_id": "c",
        "conversation": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
    },
    "longbench": {
        **dict.fromkeys(("context", "question", *(f"choice_{c}" for c in "ABCD")), "text"),
        **{"answer": "A", "_id": "x", "length": "short"},
    },
    "longbench_v1": {"context": "c", "input": "i", "answers": ["a"], "dataset": "lcc", "_id": "x"},
    "processbench": {"id": "gsm8k-1", "problem": "p", "steps": ["s"]},
    "sharegpt": {
        "id": "x",
        "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
    },
    "trace": {"ContextTokens": 5, "GeneratedTokens": 6},
}
FURTHER = {
    "custom": {"output_column": "output", "id_column": "id"},
    "trace": {"max_input_tokens": 50},
}
TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(
    [
        "",
        " ",
        "\0",
        "\ud800",
        "user",
        "Human",
        "gpt",
        "assistant",
        "system",
        "### Response:",
        "12.0",
    ]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 3 * 10**9, 2**63, 10**400, 1e300, float("nan")])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT | st.sampled_from(["role", "content", "from", "tool_calls"]), inner)
    ),
    max_leaves=5,
)


@st.composite
def damaged(draw, value):
    """Return a value with a part of it replaced, left out or doubled."""
    choice = draw(st.integers(0, 9))
    if choice == 9:
        return draw(VALUES)
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if choice == 1:
            return {name: item for name, item in value.items() if name != key}
        if choice == 2:
            return value | {draw(TEXT | st.just("tool_calls")): draw(VALUES)}
        return value | {key: draw(damaged(value[key]))}
    if isinstance(value, list) and value:
        place = draw(st.integers(0, len(value) - 1))
        if choice == 1:
            return value[:place]
        if choice == 2:
            return value * 2
        return [*value[:place], draw(damaged(value[place])), *value[place + 1 :]]
    return draw(TEXT | NUMBERS | st.just(value))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer(TEMPLATE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def stage(kind, place, encoder, folder, records):
    """Return how many records ended as prompts, and how many under a reason."""
    location = {option_class(kind).location_option: str(place)}
    wanted = {"num_requests": records + 1, "reuse_requests": True}
    options = dataset_options(kind, location | wanted | FURTHER.get(kind, {}))
    outcomes, _ = load(options)
    found = write_prompts(folder / "p.parquet", outcomes, encoder, limits_of(options, None, 1))
    rows = pq.read_table(folder / "p.parquet").to_pylist()
    assert len(rows) == records + 1
    assert all(row["prompt_token_ids"] for row in rows)
    return found["rows"] - found["reused"], sum(found["skipped"].values())


# sharegpt makes several requests of a conversation.
def check(kind, place, encoder, folder, records):
    prompts, skipped = stage(kind, place, encoder, folder, records)
    assert prompts >= 1
    if kind == "sharegpt":
        assert prompts + skipped >= records
    else:
        assert prompts + skipped == records


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("name", ["fuzz.json", "fuzz.jsonl"])
def test_every_record_is_a_prompt_or_is_counted(kind, name, encoder, folder):
    examples = -(-FUZZED_RECORDS // (len(GOOD) * 2 * RECORDS_AT_A_TIME))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        records=st.lists(
            damaged(GOOD[kind]), min_size=RECORDS_AT_A_TIME, max_size=RECORDS_AT_A_TIME
        ),
        junk=st.lists(st.binary(max_size=20).filter(lambda line: line.strip()), max_size=2),
    )
    def fuzz(records, junk):
        good = json.dumps(GOOD[kind])
        texts = [good, *map(json.dumps, records)]
        path = folder / name
        if name.endswith("l"):
            lines = [line.replace(b"\n", b"").replace(b"\0", b"") for line in junk]
            whole = [text.encode() for text in texts] + [line for line in lines if line.strip()]
            path.write_bytes(b"\n".join(whole) + b"\n")
        else:
            whole = texts
            path.write_text(f"[{', '.join(texts)}]")
        check(kind, path, encoder, folder, len(whole))

    fuzz()


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(
    columns=st.fixed_dictionaries(
        {
            "prompt": st.lists(st.binary(max_size=6), min_size=8, max_size=8),
            "id": st.lists(st.integers(-(2**62), 2**62), min_size=8, max_size=8),
            "output": st.lists(st.binary(max_size=6), min_size=8, max_size=8),
        }
    ),
    unit=st.sampled_from(["ms", "us", "ns"]),
)
def test_every_row_of_parquet_is_a_prompt_or_is_counted(columns, unit, encoder, folder):
    def text(values):
        return pa.Array.from_buffers(pa.string(), len(values), pa.array(values).buffers())

    table = {
        "prompt": text([b"good", *columns["prompt"]]),
        "id": pa.array([0, *columns["id"]], pa.timestamp(unit)),
        "output": text([b"good", *columns["output"]]),
        "more": text([b"\xff"] * 9),
    }
    pq.write_table(pa.table(table), folder / "fuzz.parquet")
    check("custom", folder / "fuzz.parquet", encoder, folder, 9)


STARTS = [b"", b"[", b"{", b"PAR1", b"prompt\n", b"\x1f\x8b", b'{"prompt"', b'[{"prompt": "']
ENDINGS = ["json", "jsonl", "csv", "parquet"]


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(STARTS), st.binary(max_size=200), st.sampled_from(ENDINGS))
def test_any_bytes_are_records_or_one_sentence(encoder, folder, start, content, ending):
    path = folder / f"bytes.{ending}"
    path.write_bytes(start + content)
    options = dataset_options("custom", {"custom_prompts": str(path), "num_requests": 999})
    with pytest.raises(DatasetError, match=r"^[^\n]*; [^\n]*$"):
        write_prompts(folder / "p", load(options)[0], encoder, limits_of(options, None, 1))
