"""Lists of URLs as CSV, TSV or JSON lines, plain or compressed.

A quoted field of a CSV may hold line ends, so such a file is one segment and is read from its
start. The first line names the columns.
"""

import csv
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, cast

import msgspec

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped
from mmdata.sources.laion_columns import ColumnNames, Columns, find_columns
from mmdata.sources.laion_rows import Row
from mmdata.sources.records import Overlong, Segment, read_records
from mmdata.sources.strict_json import decode_object
from mmdata.storage.files import open_file
from schemas.reasons import DocumentDrop

DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_GZIP_MAGIC = b"\x1f\x8b"


def table_segments(path: str) -> list[Segment]:
    """The file as one segment.

    Raises:
        BadInputError: it is empty, or not what its name says.
    """
    with open_file(path) as file:
        head = file.read(4)
    if not head:
        raise BadInputError(f"{path}: the file is empty; fetch it again")
    packed = path.lower().endswith(".gz")
    if packed != head.startswith(_GZIP_MAGIC) or head.startswith((b"PK\x03\x04", b"PAR1")):
        raise BadInputError(f"{path}: is not what its name says; name it by its kind")
    return [Segment(path)]


@contextmanager
def _open(path: str) -> Iterator[IO[str]]:
    with ExitStack() as stack:
        raw = cast(IO[bytes], stack.enter_context(open_file(path)))
        if path.lower().endswith(".gz"):
            raw = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
        yield stack.enter_context(
            io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        )


def table_columns(path: str, names: ColumnNames) -> Columns:
    """Which column is what.

    Raises:
        BadInputError: the first line names none that can be used, or one twice.
    """
    header = next(_lines(path, csv.field_size_limit()), [])
    if isinstance(header, RecordDropped) or len(set(header)) < len(header):
        raise BadInputError(f"{path}: its first line does not name each column once")
    return find_columns(header, names, path)


def _lines(path: str, limit: int) -> Iterator[list[str] | RecordDropped]:
    """The rows of a table; one that the format does not allow as the reason why."""
    delimiter = DELIMITERS[os.path.splitext(path.lower().removesuffix(".gz"))[1]]
    before = csv.field_size_limit(max(limit, 1))
    try:
        with _open(path) as file:
            rows = csv.reader(file, delimiter=delimiter)
            while True:
                try:
                    yield next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield RecordDropped(DocumentDrop.BAD_SCHEMA, str(error))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadInputError(f"{path}: damaged: {error}; fetch it again") from error
    finally:
        csv.field_size_limit(before)


def table_rows(
    segment: Segment, columns: Columns, max_record_bytes: int
) -> Iterator[Row | RecordDropped]:
    """The rows below the first line; blank lines are none."""
    lines = _lines(segment.path, max_record_bytes)
    header = next(lines, [])
    if isinstance(header, RecordDropped):
        raise BadInputError(f"{segment.path}: its first line cannot be read")
    for line in lines:
        if isinstance(line, RecordDropped):
            yield line
        elif len(line) == len(header):
            yield Row({k: v or None for k, v in zip(header, line, strict=True)}, columns)
        elif line:
            detail = f"expected {len(header)} fields, got {len(line)}"
            yield RecordDropped(DocumentDrop.BAD_SCHEMA, detail)


def json_rows(
    segment: Segment, names: ColumnNames, max_record_bytes: int
) -> Iterator[Row | RecordDropped | Overlong]:
    """The records of a segment of JSON lines."""
    columns: dict[tuple[str, ...], Columns] = {}
    for record in read_records(segment, max_record_bytes):
        if isinstance(record, Overlong):
            yield record
            continue
        try:
            values = decode_object(record)
            shape = tuple(values)
            if shape not in columns:
                columns[shape] = find_columns(shape, names, segment.path)
            yield Row(cast(dict[str, object], values), columns[shape])
        except RecordDropped as dropped:
            yield dropped
        except BadInputError as error:
            yield RecordDropped(DocumentDrop.BAD_SCHEMA, str(error).removeprefix(segment.path))


def json_columns(segment: Segment, names: ColumnNames, max_record_bytes: int) -> Columns | None:
    """The columns of the first record that is an object; None where there is none.

    Raises:
        BadInputError: it has no captions or no URLs.
    """
    for record in read_records(segment, max_record_bytes):
        if isinstance(record, Overlong):
            continue
        try:
            return find_columns(list(decode_object(record)), names, segment.path)
        except (RecordDropped, msgspec.DecodeError):
            continue
    return None
