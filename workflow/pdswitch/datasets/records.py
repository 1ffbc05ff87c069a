"""Records of one file (JSON, JSON lines, CSV, Parquet), never the whole file in memory.

One bad record is a `Skipped`, a bad file a `DatasetError`. Bytes that are not UTF-8 become lone
surrogates, so that they spoil their own record only.
"""

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pdswitch.datasets.sample import DatasetError, Skipped

Record = Mapping[str, Any] | Skipped
BinaryFile = io.BufferedReader

CHUNK = 1 << 20
LARGEST_RECORD = 1 << 26
HEAD = 4096
# Lines among which one must be a JSON object.
FIRST_LINES = 100
NOT_JSON = Skipped("line that is not JSON")
NOT_CONVERTED = Skipped("row that cannot be converted")
JSON_SPACE = " \t\r\n"
# By the first bytes of the file.
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSED_ENDINGS = (".gz", ".bz2", ".zst")
ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


class NoRecordsError(DatasetError):
    """A file that is none of records: empty, binary, or of another format."""


def names_records(name: str) -> bool:
    """Return whether a file's name says that it holds records."""
    return _plain_name(name).endswith(ENDINGS)


def _plain_name(name: str) -> str:
    """Return a file's name in lower case, without the ending of a compression."""
    name = name.lower()
    return next((name.removesuffix(e) for e in COMPRESSED_ENDINGS if name.endswith(e)), name)


def read_records(path: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the records of a local file in its order; see `records_of`.

    Raises:
        DatasetError: if the file is missing, or as `records_of` says.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(f"{path} cannot be read ({reason}); check the path") from error
    return records_of(file, str(path), columns)


def records_of(
    file: BinaryFile, name: str, columns: Collection[str] | None = None
) -> Iterator[Record]:
    """Yield the records of an open file in its order, and close it.

    The format follows from the content (Parquet's magic number, the first character) and, for
    text that does not begin like JSON, from the file's ending.

    Args:
        file: read from its beginning; one that cannot seek, as compressed ones, is read once.
        name: of the file, for its ending and for messages.
        columns: that are needed; Parquet's others are None. Without them all are read.

    Raises:
        NoRecordsError: if the file is empty, binary or of another format.
        DatasetError: if it is damaged or cut short.
    """
    try:
        return _closing(file, _records(file, name, columns), name)
    except BaseException:
        file.close()
        raise


def _closing(file: BinaryFile, found: Iterator[Record], name: str) -> Iterator[Record]:
    with file:
        try:
            yield from found
        except OSError as error:  # of the disk, or of the decompression
            raise _damaged(name, error) from error


def _damaged(name: str, error: OSError) -> DatasetError:
    return DatasetError(
        f"{name} is damaged or cut short ({error.strerror or error}); fetch it again"
    )


def _records(file: BinaryFile, name: str, columns: Collection[str] | None) -> Iterator[Record]:
    try:
        head = file.peek(HEAD)
    except OSError as error:
        raise _damaged(name, error) from error
    for magic, compression in COMPRESSIONS.items():
        if head.startswith(magic) and file.seekable():
            import pyarrow as pa

            # Of all these, pyarrow alone is there on every Python.
            unpacked = BinaryFile(pa.CompressedInputStream(file, compression), CHUNK)
            return records_of(unpacked, name, columns)
    if head.startswith(b"PAR1"):
        if not file.seekable():
            raise DatasetError(f"{name} is a Parquet file that was compressed; unpack it first")
        return _parquet(file, name, columns)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not start and len(head) < HEAD:
        raise NoRecordsError(f"{name} is empty; fetch it again")
    if b"\0" in head[:HEAD]:
        raise NoRecordsError(
            f"{name} is a binary file; give JSON, JSON lines or CSV in UTF-8, or Parquet"
        )
    ending = Path(_plain_name(name)).suffix
    if ending in {".csv", ".tsv"}:
        return _csv(file, name, "\t" if ending == ".tsv" else ",")
    if start == b"[":
        return _json_list(file, name)
    if start == b"{" or ending in {".jsonl", ".ndjson"}:
        return _json_lines(file, name)
    raise NoRecordsError(
        f"{name} begins neither like a JSON list nor like JSON lines; "
        "give JSON, JSON lines, Parquet, or CSV under a name that ends in .csv"
    )


def _parquet(file: BinaryFile, name: str, columns: Collection[str] | None) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            wanted = [column for column in names if columns is None or column in columns]
            # A record names them, so that a message can say what there is.
            others = dict.fromkeys(column for column in names if column not in wanted)
            for batch in parquet.iter_batches(batch_size=256, columns=wanted):
                for row in _rows(batch):
                    yield row if isinstance(row, Skipped) else others | row
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{name} is no whole Parquet file; fetch it again") from error


def _rows(batch: Any) -> list[dict[str, Any] | Skipped]:
    """Return a batch's rows as Python objects; those that have no such form are skipped."""
    import pyarrow as pa

    try:
        return batch.to_pylist()
    # Bytes that are no UTF-8, times that Python has not, time zones that it does not know.
    except (ValueError, ArithmeticError, LookupError, pa.ArrowException):
        if batch.num_rows == 1:
            return [NOT_CONVERTED]
        return [row for place in range(batch.num_rows) for row in _rows(batch.slice(place, 1))]


def _json_list(file: BinaryFile, name: str) -> Iterator[Record]:
    if file.seekable():
        _check_end(file, name)
    return _list_items(file, name)


def _list_items(binary: BinaryFile, name: str) -> Iterator[Record]:
    decode = json.JSONDecoder().raw_decode
    with io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape") as file:
        text = file.read(CHUNK)
        place, passed, count = text.index("[") + 1, 0, 0  # in text; before text; records so far

        def fail(at: int) -> DatasetError:
            return DatasetError(
                f"{name} is not valid JSON after record {count} (character {passed + at}); "
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
                except ValueError:  # more digits than Python turns into an integer
                    decode = json.JSONDecoder(parse_int=_number).raw_decode
                    continue
                place = end
                count += 1
                yield _object(record)
        if text[place + 1 :].strip() or file.read(CHUNK).strip():
            raise fail(place + 1)
    if not count:
        raise NoRecordsError(f"{name} holds an empty list; fetch it again")


def _may_be_cut(error: json.JSONDecodeError, text: str) -> bool:
    # Within reach of the end, "true" and "\\ud83d\\ude00" may lack their last characters.
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - 16


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _skip_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in JSON_SPACE:
        place += 1
    return place


def _json_lines(file: BinaryFile, name: str) -> Iterator[Record]:
    lines = _lines(file, name)
    first = []
    for record in islice(lines, FIRST_LINES):
        first.append(record)
        if not isinstance(record, Skipped):
            break
    else:
        raise NoRecordsError(
            f"{name} does not hold one JSON object per line; give JSON lines, or a JSON list"
        )
    if file.seekable():
        place = file.tell()
        _check_last_line(file, name)
        file.seek(place)
    return chain(first, lines)


def _lines(file: BinaryFile, name: str) -> Iterator[Record]:
    while line := file.readline(LARGEST_RECORD):
        if len(line) == LARGEST_RECORD:
            raise DatasetError(
                f"{name} has a line longer than {LARGEST_RECORD >> 20} MB; give one record per line"
            )
        if line.strip():
            yield _line(line)


def _line(line: bytes) -> Record:
    try:
        text = line.decode("utf-8-sig", errors="surrogateescape")
        return _object(json.loads(text))
    except (ValueError, RecursionError):
        return NOT_JSON


def _object(value: Any) -> Record:
    return value if isinstance(value, dict) else Skipped("record that is no object")


def _csv(binary: BinaryFile, name: str, delimiter: str) -> Iterator[Record]:
    # The standard limit of 128 kB a field is less than a long prompt.
    csv.field_size_limit(LARGEST_RECORD)
    file = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
    with file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        header: list[str] = []
        while True:
            whole = lines.line_num
            try:
                fields = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                # The reader goes on after a bad line, but not after the end of the file.
                if header and "unexpected end" not in str(error):
                    yield Skipped("row that is not CSV")
                    continue
                raise DatasetError(
                    f"{name} is not valid CSV after line {whole} ({error}); "
                    "quote fields that hold quotes, or fetch it again"
                ) from error
            if not header:
                header = fields
            elif len(fields) == len(header):
                yield dict(zip(header, fields, strict=True))
            elif fields:
                yield Skipped("row with a wrong number of fields")


def _check_end(file: BinaryFile, name: str) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - HEAD))
    if file.read().rstrip()[-1:] != b"]":
        raise DatasetError(f"{name} ends in the middle of its list; fetch it again")
    file.seek(0)


def _check_last_line(file: BinaryFile, name: str) -> None:
    """Refuse a file whose last line, without a line break, is no JSON: it was cut there."""
    size = file.seek(0, 2)
    tail, start = b"", size
    while start > 0 and len(tail) < LARGEST_RECORD and b"\n" not in tail.rstrip(b"\r\n"):
        start = max(0, start - CHUNK)
        file.seek(start)
        tail = file.read(size - start)
    last = tail.rstrip(b"\r\n").rsplit(b"\n", 1)[-1]
    if not tail.endswith(b"\n") and _line(last) is NOT_JSON:
        raise DatasetError(f"{name} ends in the middle of a line; fetch it again")
