"""Files of records: every format, and every way in which a file can be broken."""

import bz2
import gzip
import io
import json
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdswitch.datasets import records as module
from pdswitch.datasets.records import read_records
from pdswitch.datasets.sample import DatasetError, Skipped

ROWS = [{"prompt": "One?", "n": 1}, {"prompt": "Zwei ü 🌞", "n": 2}, {"prompt": "3\n4", "n": None}]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    return list(read_records(path))


def reasons(found):
    return [record.reason for record in found if isinstance(record, Skipped)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps(ROWS)),
        ("pretty.json", "\n\n" + json.dumps(ROWS, indent=4, ensure_ascii=False) + "\n"),
        ("bom.json", "\ufeff" + json.dumps(ROWS)),
        ("lines.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("no-break-at-the-end.jsonl", "\n\n".join(json.dumps(row) for row in ROWS)),
        ("lines-called.json", "\ufeff" + "\r\n".join(json.dumps(row) for row in ROWS)),
    ],
)
def test_json_in_every_dress(tmp_path, name, content):
    assert read(write(tmp_path / name, content)) == ROWS


def test_parquet_by_content_not_by_name(tmp_path):
    path = tmp_path / "called.json"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert read(path) == ROWS


def test_csv_with_quotes_line_breaks_and_a_long_field(tmp_path):
    long = "word " * 60_000
    content = f'\ufeffprompt,n\r\n"a ""b"", c\r\nd",1\r\nplain,2\r\n"{long}",3\r\n'
    found = read(write(tmp_path / "t.csv", content))
    assert [row["prompt"] for row in found] == ['a "b", c\r\nd', "plain", long]
    assert read(write(tmp_path / "t.tsv", "prompt\tn\na,b\t1\n")) == [{"prompt": "a,b", "n": "1"}]


def test_a_bad_line_is_skipped_and_a_row_of_the_wrong_length(tmp_path):
    lines = ['{"a": 1}', '{"a": ', "[1]", '{"a": 2}']
    found = read(write(tmp_path / "t.jsonl", "\n".join(lines) + "\n"))
    assert reasons(found) == ["line that is not JSON", "record that is no object"]
    assert [record for record in found if not isinstance(record, Skipped)] == [{"a": 1}, {"a": 2}]
    found = read(write(tmp_path / "t.csv", "a,b\n1,2\n1\n1,2,3\n"))
    assert reasons(found) == ["row with a wrong number of fields"] * 2


def test_a_broken_line_is_skipped_wherever_it_stands(tmp_path):
    for name, line in (("t.jsonl", "WARNING: no JSON"), ("t.json", "{broken"), ("t.jsonl", "7")):
        found = read(write(tmp_path / name, f'{line}\n{{"a": 1}}\n{line}\n{{"a": 2}}\n'))
        assert len(reasons(found)) == 2
        assert [r for r in found if not isinstance(r, Skipped)] == [{"a": 1}, {"a": 2}]
    found = read(write(tmp_path / "t.csv", 'a,b\n"x"y,1\n2,3\n"x"y,4\n5,6\n'))
    assert reasons(found) == ["row that is not CSV"] * 2
    assert [r["a"] for r in found if not isinstance(r, Skipped)] == ["2", "5"]


def test_a_number_of_too_many_digits_spoils_its_own_record_only(tmp_path):
    digits = "9" * 5000
    lines = f'{{"a": 1}}\n{{"a": {digits}}}\n{{"a": 2}}\n'
    assert reasons(read(write(tmp_path / "t.jsonl", lines))) == ["line that is not JSON"]
    rows = read(write(tmp_path / "t.json", f'[{{"a": 1}}, {{"a": {digits}}}, {{"a": 2}}]'))
    assert [row["a"] for row in rows] == [1, float("inf"), 2]
    assert isinstance(rows[2]["a"], int)


def test_compressed_files_are_read_by_their_content(tmp_path):
    lines = b'{"a": 1}\n{"a": 2}\n'
    packed = {"gz": gzip.compress(lines), "bz2": bz2.compress(lines)}
    packed["zst"] = pa.compress(lines, "zstd", asbytes=True)
    for ending, content in packed.items():
        assert read(write(tmp_path / f"t.jsonl.{ending}", content)) == [{"a": 1}, {"a": 2}]
    assert read(write(tmp_path / "t.csv.gz", gzip.compress(b"a\n1\n"))) == [{"a": "1"}]
    assert read(write(tmp_path / "t.json.gz", gzip.compress(b'[{"a": 1}]'))) == [{"a": 1}]
    with pytest.raises(DatasetError, match=r"is damaged or cut short .*; fetch it again"):
        read(
            write(tmp_path / "cut.jsonl.gz", gzip.compress(os.urandom(50_000).hex().encode())[:99])
        )
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    with pytest.raises(DatasetError, match="was compressed; unpack it first"):
        read(write(tmp_path / "t.parquet.gz", gzip.compress(parquet.getvalue())))


YEAR_11476 = 300_000_000_000_000_000


def test_of_parquet_only_the_columns_that_are_needed_are_converted(tmp_path):
    path = tmp_path / "t.parquet"
    times = pa.array([0, YEAR_11476, 0], pa.timestamp("us"))
    zones = pa.array([0, 0, 0], pa.timestamp("s", "Nowhere/Town"))
    pq.write_table(pa.table({"a": ["x", "y", "z"], "time": times, "zone": zones}), path)
    found = list(read_records(path, {"a", "b"}))
    assert [row["a"] for row in found] == ["x", "y", "z"]
    # The others are named all the same, for the message about wrong columns.
    assert all(row["time"] is row["zone"] is None and len(row) == 3 for row in found)
    assert [set(row) for row in read_records(path, {"b"})] == [{"a", "time", "zone"}] * 3


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, YEAR_11476, 0], pa.timestamp("us")),
        pa.Array.from_buffers(pa.string(), 3, pa.array([b"good", b"caf\xe9", b"good"]).buffers()),
        pa.array([0, 2**50, 0], pa.date64()),
    ],
)
def test_a_parquet_row_that_python_cannot_hold_is_skipped(tmp_path, column):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": column, "n": [1, 2, 3]}), path)
    found = read(path)
    assert reasons(found) == ["row that cannot be converted"]
    assert [row["n"] for row in found if not isinstance(row, Skipped)] == [1, 3]


def test_bytes_that_are_not_utf8_spoil_their_own_record_only(tmp_path):
    for name, content in (
        ("t.json", b'[{"a": "good"}, {"a": "caf\xe9"}, {"a": "good"}]'),
        ("t.jsonl", b'{"a": "good"}\n{"a": "caf\xe9"}\n{"a": "good"}\n'),
        ("t.csv", b"a\ngood\ncaf\xe9\ngood\n"),
    ):
        found = read(write(tmp_path / name, content))
        assert [record["a"] for record in found] == ["good", "caf\udce9", "good"]


def test_lone_surrogates_are_kept_for_the_check_of_texts(tmp_path):
    found = read(write(tmp_path / "t.json", r'[{"a": "\ud83d"}, {"a": "\ud83d\ude00"}]'))
    assert found == [{"a": "\ud83d"}, {"a": "😀"}]


FIVE_MEGABYTES = 5 * 1024 * 1024


def test_a_line_of_five_megabytes_is_a_record(tmp_path):
    row = {"prompt": "a" * FIVE_MEGABYTES}
    for name, content in (("t.json", json.dumps([row, row])), ("t.jsonl", json.dumps(row) + "\n")):
        found = read(write(tmp_path / name, content))
        assert {len(record["prompt"]) for record in found} == {FIVE_MEGABYTES}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.json", b"", "is empty"),
        ("t.json", b" \n \n", "is empty"),
        ("t.json", b"[]", "holds an empty list"),
        ("t.json", b"[ ]\n", "holds an empty list"),
        ("t.json", json.dumps(ROWS)[:-1].encode(), "ends in the middle of its list"),
        ("t.json", json.dumps(ROWS)[:40].encode(), "ends in the middle of its list"),
        ("t.json", b'[{"a": 1}, {"a": oops}]', "is not valid JSON after record 1 "),
        ("t.json", b'[{"a": "no end}, {"a": 2}]', "is not valid JSON after record 0 "),
        ("t.json", b'[{"a": 1}] [{"a": 2}]', "is not valid JSON after record 1 "),
        ("t.json", b"[" * 100_000 + b"]", "is not valid JSON after record 0 "),
        ("t.json", b'"text"', "begins neither like a JSON list nor like JSON lines"),
        ("t.json", b"a" * FIVE_MEGABYTES, "begins neither"),
        ("t.json", b'{\n "a": 1\n}', "does not hold one JSON object per line"),
        ("t.jsonl", b'{"a": 1}\n{"a": 2}\n{"a": "cut of', "ends in the middle of a line"),
        ("t.jsonl", b"{" + b"a" * FIVE_MEGABYTES, "does not hold one JSON object per line"),
        ("t.csv", b'a,b\n"never closed,1\n2,3\n', "is not valid CSV after line 1"),
        ("t.csv", b'"x"y,b\n1,2\n', "is not valid CSV after line 0"),
        ("t.json", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is a binary file"),
        ("t.jsonl", "[]".encode("utf-16"), "is a binary file"),
        ("t.parquet", b"PAR1" + b"\x00" * 100, "is no whole Parquet file"),
    ],
)
def test_a_bad_file_gets_one_sentence(tmp_path, name, content, sentence):
    path = write(tmp_path / name, content)
    with pytest.raises(DatasetError, match=re.escape(f"{path} {sentence}")) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_a_parquet_file_that_was_cut_short(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS * 50), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match="is no whole Parquet file"):
        read(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read(tmp_path / "nothing.json")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), min_size=1),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_a_list_reads_the_same_in_chunks_of_any_size(
    tmp_path_factory, rows, chunk, indent, ascii_only
):
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path = write(tmp_path_factory.getbasetemp() / "chunks.json", text.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        assert read(path) == json.loads(path.read_text(encoding="utf-8"))
