"""Lists of image-text pairs (LAION, COYO, DataComp, img2dataset's output): segments and rows.

What a file is follows from its name and its columns. Where it holds the images, or they stand
beside it, nothing is fetched.
"""

import os
import re
import zlib
from collections.abc import Iterator

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped
from mmdata.sources.fields import FieldSearch
from mmdata.sources.laion_columns import ColumnNames, Columns
from mmdata.sources.laion_parquet import (
    count_parquet,
    parquet_columns,
    parquet_rows,
    parquet_segments,
)
from mmdata.sources.laion_rows import LaionRow
from mmdata.sources.laion_tars import tar_rows, tar_segments
from mmdata.sources.laion_text import (
    TABLE_SUFFIXES,
    Quoting,
    count_table,
    json_columns,
    json_rows,
    table_columns,
    table_rows,
    table_segments,
)
from mmdata.sources.records import SUFFIXES as JSON_SUFFIXES
from mmdata.sources.records import Overlong, Segment, read_records
from mmdata.sources.records import list_segments as json_segments
from mmdata.storage.files import is_folder, list_names, open_file
from mmdata.storage.urls import is_web

#: Endings of the files that a folder stands for; where it holds tars, only these.
SUFFIXES = (".parquet", *TABLE_SUFFIXES, *JSON_SUFFIXES)
_CHUNK_BYTES = 1 << 20
_GLOB_CHARACTERS = re.compile(r"([*?\[])")

AnyRow = LaionRow | RecordDropped | Overlong


def expand_folders(specs: tuple[str, ...]) -> tuple[str, ...]:
    """Folders of tars as a pattern for these: the tables beside img2dataset's tars are not meant.

    Args:
        specs: files, folders, globs and ranges as the user named them.
    """
    return tuple(
        os.path.join(_GLOB_CHARACTERS.sub(r"[\1]", spec), "*.tar") if _holds_tars(spec) else spec
        for spec in specs
    )


def _holds_tars(spec: str) -> bool:
    if is_web(spec) or any(char in spec for char in "*?{"):
        return False
    return is_folder(spec) and any(name.endswith(".tar") for name in list_names(spec))


def _kind(path: str) -> str:
    name = path.lower()
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(".tar"):
        return "tar"
    if name.endswith(TABLE_SUFFIXES):
        return "table"
    if name.endswith(JSON_SUFFIXES):
        return "json"
    expected = ", ".join((".tar", *SUFFIXES))
    raise BadInputError(f"{path}: expected a file that ends in {expected}")


def list_segments(path: str) -> list[Segment]:
    """The segments of an input.

    Raises:
        BadInputError: empty, damaged, or not what its name says.
    """
    listers = {
        "parquet": parquet_segments,
        "tar": tar_segments,
        "table": table_segments,
        "json": json_segments,
    }
    return listers[_kind(path)](path)


def columns_of(
    segment: Segment, names: ColumnNames, max_record_bytes: int, quoting: Quoting = "auto"
) -> Columns | None:
    """The columns of a segment; None where each sample has its own.

    Args:
        segment: of an input.
        names: as the user named the columns.
        max_record_bytes: longer records are passed over.
        quoting: of .csv and .tsv.

    Raises:
        BadInputError: it has no captions, or neither URLs nor images.
    """
    kind = _kind(segment.path)
    if kind == "parquet":
        return parquet_columns(segment.path, names)
    if kind == "table":
        return table_columns(segment, names, quoting, max_record_bytes)
    return json_columns(segment, names, max_record_bytes) if kind == "json" else None


def read_rows(
    segment: Segment, names: ColumnNames, max_record_bytes: int, quoting: Quoting = "auto"
) -> Iterator[AnyRow]:
    """The rows of a segment, in order; what is no row comes as the reason why.

    Args:
        segment: of an input.
        names: as the user named the columns.
        max_record_bytes: a longer record comes as `Overlong`.
        quoting: of .csv and .tsv.

    Raises:
        BadInputError: the input turns out to be damaged.
    """
    kind = _kind(segment.path)
    if kind == "parquet":
        yield from parquet_rows(segment, parquet_columns(segment.path, names))
    elif kind == "table":
        yield from table_rows(segment, names, quoting, max_record_bytes)
    elif kind == "json":
        yield from json_rows(segment, names, max_record_bytes)
    else:
        yield from tar_rows(segment, names)


def count_rows(
    segment: Segment,
    names: ColumnNames,
    max_record_bytes: int,
    quoting: Quoting = "auto",
    search: FieldSearch | None = None,
) -> tuple[int, int]:
    """(rows of a segment, CRC-32 of what it was read from); the segment is read to its end.

    Of a file of several segments, the first one's CRC is that of the whole file.

    Args:
        segment: of an input.
        names: columns as the user named them.
        max_record_bytes: longer records are passed over.
        quoting: of delimited text.
        search: looks at the rows on the way.

    Raises:
        BadInputError: damaged.
    """
    kind, search = _kind(segment.path), search or FieldSearch(())
    if kind == "json":
        crc = rows = 0
        for record in read_records(segment, max_record_bytes):
            if isinstance(record, Overlong):
                data = b"%d" % record.num_bytes
            else:
                data = record
                search.look_at_record(record)
            crc, rows = zlib.crc32(b"\n", zlib.crc32(data, crc)), rows + 1
        return rows, crc
    crc = _file_crc(segment.path) if segment.start == 0 else 0
    if kind == "parquet":
        return count_parquet(segment, search), crc
    if kind == "table" and not search.left:
        return count_table(segment, names, quoting, max_record_bytes), crc
    rows = 0
    for row in (
        table_rows(segment, names, quoting, max_record_bytes)
        if kind == "table"
        else tar_rows(segment, ColumnNames())
    ):
        rows += 1
        if isinstance(row, LaionRow):
            search.look(row.values)
    return rows, crc


def _file_crc(path: str) -> int:
    crc = 0
    with open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc
