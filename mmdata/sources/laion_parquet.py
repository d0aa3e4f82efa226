"""Lists of images in parquet: URLs, or the encoded images themselves.

Rows stream in small batches, a column chunk's pages at a time, so that memory grows neither with
the file nor with a row group. A segment is a range of rows: whole row groups together until they
are worth a task, or a part of a row group that is very long.

`{key}.parquet` beside a folder `{key}/` is what img2dataset leaves with `output_format=files`: the
images are then in that folder.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mmdata.errors import BadInputError
from mmdata.sources.arrow_columns import (
    holds_images,
    image_bytes,
    parquet_errors,
    plain_type,
    values_of,
)
from mmdata.sources.fields import FieldSearch
from mmdata.sources.laion_columns import IMAGE_NAMES, ColumnNames, Columns, find_columns
from mmdata.sources.laion_rows import LaionRow
from mmdata.sources.records import Segment
from mmdata.sources.tar_images import IMAGE_SUFFIXES
from mmdata.storage.files import is_folder, list_names, open_file, read_bytes
from mmdata.storage.urls import is_url

#: Row groups are put together up to so many rows or bytes, and longer ones are cut.
SEGMENT_ROWS = 10_000
SEGMENT_BYTES = 256 * 2**20
LONGEST_ROWS = 100_000
_BATCH_ROWS = 512
_IMAGE_BATCH_ROWS = 16
_BUFFER_BYTES = 1 << 20


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """A parquet file; what is damaged in it becomes a BadInputError."""
    import pyarrow.parquet as pq

    with parquet_errors(path, "damaged or no parquet"), ExitStack() as stack:
        source = stack.enter_context(open_file(path)) if is_url(path) else path
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        yield stack.enter_context(file)


def parquet_segments(path: str) -> list[Segment]:
    """Ranges of rows.

    Raises:
        BadInputError: it is no parquet file, or cut off.
    """
    with _open(path) as file:
        groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    segments: list[Segment] = []
    start = end = held = 0
    for rows, num_bytes in sizes:
        end, held = end + rows, held + num_bytes
        while num_bytes < SEGMENT_BYTES and end - start > LONGEST_ROWS:
            segments.append(Segment(path, "", start, start + LONGEST_ROWS))
            start += LONGEST_ROWS
        if end - start >= SEGMENT_ROWS or held >= SEGMENT_BYTES:
            segments.append(Segment(path, "", start, end))
            start, held = end, 0
    if end > start or not segments:
        segments.append(Segment(path, "", start, end))
    return segments


def parquet_columns(path: str, names: ColumnNames) -> Columns:
    """Which column is what.

    Raises:
        BadInputError: it has no captions, or neither URLs nor images.
    """
    with _open(path) as file:
        schema = file.schema_arrow
        there = list(schema.names)
        if len(set(there)) < len(there):
            raise BadInputError(f"{path}: two columns have one name")
        found = (name for name in IMAGE_NAMES if name in there)
        image = next((name for name in found if holds_images(schema.field(name).type)), None)
    if image is None and _images_beside(path, there):
        image = ""
    return find_columns(there, names, path, image)


def _folder_of(path: str) -> str:
    return os.path.splitext(path)[0]


def _images_beside(path: str, there: list[str]) -> bool:
    return {"key", "status"} <= set(there) and is_folder(_folder_of(path))


def parquet_rows(segment: Segment, columns: Columns) -> Iterator[LaionRow]:
    """The rows of a segment.

    Raises:
        BadInputError: the file turns out to be damaged.
    """
    with _open(segment.path) as file:
        groups, skip = _groups(file, segment)
        has_image = bool(columns.image)
        beside = None
        if not has_image and _images_beside(segment.path, file.schema_arrow.names):
            beside, has_image = _Beside(_folder_of(segment.path)), True
        size = _IMAGE_BATCH_ROWS if columns.image else _BATCH_ROWS
        left = (segment.end or 0) - segment.start
        for batch in file.iter_batches(batch_size=size, row_groups=groups, use_threads=False):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            part = batch.slice(skip, left)
            skip = 0
            for values in _values(part):
                yield _row(values, columns, beside, has_image=has_image)
            left -= part.num_rows
            if left <= 0:
                return


def count_parquet(segment: Segment, search: FieldSearch) -> int:
    """The rows of a segment, all of its pages decoded on the way; `search` looks at them.

    Raises:
        BadInputError: the file is damaged.
    """
    with _open(segment.path) as file:
        groups, _ = _groups(file, segment)
        if search.left:
            search.there |= dict.fromkeys(_names(file.schema_arrow))
        for batch in file.iter_batches(
            batch_size=_IMAGE_BATCH_ROWS * 4, row_groups=groups, use_threads=False
        ):
            if search.left:
                _look(batch, search)
    return (segment.end or 0) - segment.start


def _names(schema: Any) -> Iterator[str]:
    """Names of columns, those inside structs as `a.b`."""
    import pyarrow.types as kinds

    for field in schema:
        yield field.name
        plain = plain_type(field.type)
        if kinds.is_struct(plain):
            yield from (f"{field.name}.{name}" for name in _names(plain))


def _look(batch: Any, search: FieldSearch) -> None:
    """Look for fields in the columns that may hold them."""
    names = [
        name
        for name in batch.schema.names
        if any(wanted.path == name or wanted.path.startswith(name + ".") for wanted in search.left)
    ]
    for values in _values(batch.select(names)) if names else ():
        if not search.left:
            return
        search.look(values)


def _groups(file: Any, segment: Segment) -> tuple[list[int], int]:
    """Row groups that a segment touches, and its rows to pass over in the first of them."""
    groups: list[int] = []
    first = skip = 0
    for number in range(file.num_row_groups):
        last = first + file.metadata.row_group(number).num_rows
        if last > segment.start and first < (segment.end or 0):
            if not groups:
                skip = segment.start - first
            groups.append(number)
        first = last
    return groups, skip


def _values(batch: Any) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = [values_of(batch.column(place)) for place in range(len(names))]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _row(
    values: dict[str, Any], columns: Columns, beside: "_Beside | None", *, has_image: bool
) -> LaionRow:
    if beside is not None:
        return LaionRow(values, columns, beside.read(values.get("key")), has_image=True)
    if not has_image:
        return LaionRow(values, columns)
    image = image_bytes(values.get(columns.image))
    return LaionRow(values, columns, image, has_image=True)


class _Beside:
    """Images of img2dataset's folder, by key; listed once, links not followed."""

    def __init__(self, folder: str) -> None:
        self._files: dict[str, str] = {}
        for name in sorted(list_names(folder)):
            stem, suffix = os.path.splitext(name)
            path = os.path.join(folder, name)
            plain = is_url(folder) or (os.path.isfile(path) and not os.path.islink(path))
            if suffix.lower() in IMAGE_SUFFIXES and plain:
                self._files.setdefault(stem, path)

    def read(self, key: Any) -> bytes | None:
        path = self._files.get(key) if isinstance(key, str) else None
        return None if path is None else read_bytes(path)
