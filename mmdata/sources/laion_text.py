"""Lists of URLs as CSV, TSV or JSON lines, plain or compressed.

A quoted field of a CSV may hold line ends, so such a file is one segment and is read from its
start. The first line names the columns.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped
from mmdata.sources.delimited import REMEDY, Cells, read_delimited, swallowed_line
from mmdata.sources.laion_columns import ColumnNames, Columns, find_columns
from mmdata.sources.laion_rows import LaionRow
from mmdata.sources.records import Overlong, Segment, open_segment, read_records
from mmdata.sources.strict_json import decode_object
from mmdata.storage.files import open_file
from schemas.reasons import DocumentDrop

DELIMITERS = {".csv": b",", ".tsv": b"\t"}
TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
#: auto: fields of a CSV may stand in double quotes, in a TSV a quote is text.
Quoting = Literal["auto", "double", "none"]
#: JSON records that are looked at to find the columns.
_LOOKED_AT_RECORDS = 100
_GZIP_MAGIC = b"\x1f\x8b"

Line = Cells | RecordDropped | Overlong


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


@dataclass(frozen=True, slots=True)
class _Table:
    """A file of delimited text whose first line is read.

    Attributes:
        header: the names of its columns.
        columns: which of them is what.
        rows: those below.
    """

    header: list[str]
    columns: Columns
    rows: Iterator[Line]


@contextmanager
def _open_table(
    segment: Segment, names: ColumnNames, quoting: Quoting, limit: int
) -> Iterator[_Table]:
    """A table behind its first line.

    Raises:
        BadInputError: damaged, or its first line names no columns, or one twice.
    """
    path = segment.path
    delimiter = DELIMITERS[os.path.splitext(path.lower().removesuffix(".gz"))[1]]
    quoted = quoting == "double" or (quoting == "auto" and delimiter == b",")
    with open_segment(segment) as file:
        rows = read_delimited(file, path, delimiter, limit, quoted=quoted)
        header = next(rows, None)
        if isinstance(header, Overlong | RecordDropped):
            raise BadInputError(f"{path}: its first line cannot be read as names of columns")
        there = [_text(name) for name in header.fields] if header else []
        if len(set(there)) < len(there):
            raise BadInputError(f"{path}: its first line does not name each column once")
        columns = find_columns(there, names, path)
        if quoted and quoting == "auto":
            rows = _none_swallowed(rows, path, delimiter, there.index(columns.url))
        yield _Table(there, columns, rows)


def _none_swallowed(
    rows: Iterator[Line], path: str, delimiter: bytes, url_place: int
) -> Iterator[Line]:
    """The rows; a quoted field with whole rows in it is an error."""
    for row in rows:
        if isinstance(row, Cells) and (line := swallowed_line(row, delimiter, url_place)):
            raise BadInputError(
                f"{path}: line {row.line}: a quoted field of this row holds line {line}, which "
                f"reads as a row itself; {REMEDY}, or say that all quotes are right with "
                "--quoting double"
            )
        yield row


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def table_columns(
    segment: Segment, names: ColumnNames, quoting: Quoting, max_record_bytes: int
) -> Columns:
    """Which column is what.

    Raises:
        BadInputError: the first line names none that can be used, or one twice.
    """
    with _open_table(segment, names, quoting, max_record_bytes) as table:
        return table.columns


def count_table(
    segment: Segment, names: ColumnNames, quoting: Quoting, max_record_bytes: int
) -> int:
    """How many rows `table_rows` gives.

    Raises:
        BadInputError: damaged, or a quoted field swallows rows.
    """
    with _open_table(segment, names, quoting, max_record_bytes) as table:
        return sum(1 for _ in table.rows)


def table_rows(
    segment: Segment, names: ColumnNames, quoting: Quoting, max_record_bytes: int
) -> Iterator[LaionRow | RecordDropped | Overlong]:
    """The rows below the first line.

    Raises:
        BadInputError: damaged, or a quoted field swallows rows.
    """
    with _open_table(segment, names, quoting, max_record_bytes) as table:
        for line in table.rows:
            yield _row(line, table) if isinstance(line, Cells) else line


def _row(line: Cells, table: _Table) -> LaionRow | RecordDropped:
    header = table.header
    if len(line.fields) != len(header):
        detail = f"line {line.line}: expected {len(header)} fields, got {len(line.fields)}"
        return RecordDropped(DocumentDrop.BAD_SCHEMA, detail)
    texts = map(_text, line.fields)
    return LaionRow(
        {name: text or None for name, text in zip(header, texts, strict=True)}, table.columns
    )


def json_rows(
    segment: Segment, names: ColumnNames, max_record_bytes: int
) -> Iterator[LaionRow | RecordDropped | Overlong]:
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
            yield LaionRow(cast(dict[str, object], values), columns[shape])
        except RecordDropped as dropped:
            yield dropped
        except BadInputError as error:
            detail = str(error).removeprefix(f"{segment.path}: ")
            yield RecordDropped(DocumentDrop.BAD_SCHEMA, detail, fields=shape)


def json_columns(segment: Segment, names: ColumnNames, max_record_bytes: int) -> Columns | None:
    """The columns of the first record that has what a pair needs; None where none of them does.

    One record without says nothing of the others: it is dropped when it is read.
    """
    records = read_records(segment, max_record_bytes)
    for record in islice(records, _LOOKED_AT_RECORDS):
        if isinstance(record, Overlong):
            continue
        try:
            return find_columns(list(decode_object(record)), names, segment.path)
        except (RecordDropped, BadInputError):
            continue
    return None
