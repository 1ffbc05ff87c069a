"""Records of one local file (JSON, JSON lines, CSV, Parquet), never the whole file in memory.

One bad record is a `Skipped`, a bad file a `DatasetError`. Bytes that are not UTF-8 become lone
surrogates, so that they spoil their own record only.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pdswitch.datasets.sample import DatasetError, Skipped

Record = Mapping[str, Any] | Skipped

CHUNK = 1 << 20
LARGEST_RECORD = 1 << 26
HEAD = 4096
NOT_JSON = Skipped("line that is not JSON")
JSON_SPACE = " \t\r\n"


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in its order.

    The format follows from the content (Parquet's magic number, the first character) and, for
    text that does not begin like JSON, from the file's ending.

    Raises:
        DatasetError: if the file is missing, empty, binary, cut short or of another format.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if head.startswith(b"PAR1"):
        return _parquet(path)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not start and path.stat().st_size <= HEAD:
        raise DatasetError(f"{path} is empty; fetch it again")
    if b"\0" in head:
        raise DatasetError(
            f"{path} is a binary file; give JSON, JSON lines or CSV in UTF-8, or Parquet"
        )
    if path.suffix.lower() in {".csv", ".tsv"}:
        return _csv(path)
    if start == b"[":
        return _json_list(path)
    if start == b"{":
        return _json_lines(path)
    raise DatasetError(
        f"{path} begins neither like a JSON list nor like JSON lines; "
        "give JSON, JSON lines, Parquet, or CSV under a name that ends in .csv"
    )


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is no whole Parquet file; fetch it again") from error


def _json_list(path: Path) -> Iterator[Record]:
    _check_end(path, b"]")
    return _list_items(path)


def _list_items(path: Path) -> Iterator[Record]:
    decode = json.JSONDecoder().raw_decode
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        text = file.read(CHUNK)
        place, passed, count = text.index("[") + 1, 0, 0  # in text; before text; records so far

        def fail(at: int) -> DatasetError:
            return DatasetError(
                f"{path} is not valid JSON after record {count} (character {passed + at}); "
                "fetch it again"
            )

        while True:
            place = _skip_space(text, place)
            if place == len(text):
                passed, text, place = passed + place, file.read(CHUNK), 0
                if not text:
                    raise fail(0)
            elif text[place] == "]":
                break
            elif text[place] == "," and count:
                place += 1
            else:
                try:
                    record, end = decode(text, place)
                except RecursionError as error:
                    raise fail(place) from error
                except json.JSONDecodeError as error:
                    more = file.read(max(CHUNK, len(text) - place))
                    broken = not _may_be_cut(error, text)
                    if not more or broken or len(text) - place > LARGEST_RECORD:
                        raise fail(error.pos) from error
                    passed, text, place = passed + place, text[place:] + more, 0
                    continue
                place = end
                count += 1
                yield _object(record)
        if text[place + 1 :].strip() or file.read(CHUNK).strip():
            raise fail(place + 1)
    if not count:
        raise DatasetError(f"{path} holds an empty list; fetch it again")


def _may_be_cut(error: json.JSONDecodeError, text: str) -> bool:
    # Within reach of the end, "true" and "\\ud83d\\ude00" may lack their last characters.
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - 16


def _skip_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in JSON_SPACE:
        place += 1
    return place


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        first = _line(file.readline(LARGEST_RECORD))
        if first is NOT_JSON:
            raise DatasetError(
                f"{path} does not hold one JSON object per line; give JSON lines, or a JSON list"
            )
        _check_last_line(path, file)
    return _lines(path)


def _lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        while line := file.readline(LARGEST_RECORD):
            if len(line) == LARGEST_RECORD:
                raise DatasetError(
                    f"{path} has a line longer than {LARGEST_RECORD >> 20} MB; "
                    "give one record per line"
                )
            if line.strip():
                yield _line(line)


def _line(line: bytes) -> Record:
    try:
        text = line.decode("utf-8-sig", errors="surrogateescape")
        return _object(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        return NOT_JSON


def _object(value: Any) -> Record:
    return value if isinstance(value, dict) else Skipped("record that is no object")


def _csv(path: Path) -> Iterator[Record]:
    # The standard limit of 128 kB a field is less than a long prompt.
    csv.field_size_limit(LARGEST_RECORD)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for row in rows:
                whole = None not in row and None not in row.values()
                yield row if whole else Skipped("row with a wrong number of fields")
        except csv.Error as error:
            raise DatasetError(
                f"{path} is not valid CSV after line {rows.line_num} ({error}); "
                "quote fields that hold quotes, or fetch it again"
            ) from error


def _check_end(path: Path, bracket: bytes) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - HEAD))
        if file.read().rstrip()[-1:] != bracket:
            raise DatasetError(f"{path} ends in the middle of its list; fetch it again")


def _check_last_line(path: Path, file: BinaryIO) -> None:
    """Refuse a file whose last line, without a line break, is no JSON: it was cut there."""
    size = file.seek(0, 2)
    tail, start = b"", size
    while start > 0 and len(tail) < LARGEST_RECORD and b"\n" not in tail.rstrip(b"\r\n"):
        start = max(0, start - CHUNK)
        file.seek(start)
        tail = file.read(size - start)
    last = tail.rstrip(b"\r\n").rsplit(b"\n", 1)[-1]
    if not tail.endswith(b"\n") and _line(last) is NOT_JSON:
        raise DatasetError(f"{path} ends in the middle of a line; fetch it again")
