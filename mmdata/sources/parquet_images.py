"""Images inside parquet files: a column of names (or keys, or URLs) and one of bytes.

Names are indexed once a process; images are read a row group at a time, and the last row group is
kept, since parquet cannot give out one row: documents should come in the order of the rows, or
every image costs a row group. Row groups over 256 MiB are refused, so that a worker stays small.
"""

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdata.errors import BadInputError
from mmdata.images import ImageRejected
from mmdata.sources.arrow_columns import (
    holds_images,
    image_bytes,
    is_text,
    parquet_errors,
    plain_type,
    values_of,
)
from mmdata.sources.name_index import IndexedImages
from mmdata.sources.names import is_junk, one_of, shown
from mmdata.storage.files import open_file
from mmdata.wording import plural
from schemas.reasons import ImageDrop

NAME_COLUMNS = ("image_name", "name", "key")
BYTES_COLUMNS = ("bytes", "image", "jpg")
_MAX_GROUP_BYTES = 256 * 2**20


class ParquetImages(IndexedImages):
    """Images of any number of parquet files, by name or URL.

    Raises:
        BadInputError: a file is damaged or lacks the columns.
    """

    def __init__(self, paths: tuple[str, ...], max_bytes: int) -> None:
        self._paths = paths
        self._max_bytes = max_bytes
        super().__init__("the parquet files of images")
        self._columns: list[str] = []
        self._kept: tuple[tuple[int, int], Any] | None = None
        self._files, self._groups, self._rows = array("L"), array("L"), array("L")
        for number, path in enumerate(paths):
            self._columns.append(self._add(number, path))
        self._index.finish()

    def take(self, name: str) -> bytes | None:
        """The bytes in the row of this name; of several all must be the same picture.

        Raises:
            ImageRejected: too-large or ambiguous-name.
            BadInputError: the file turns out to be damaged.
        """
        cells = (self._cell(row) for row in self._index.exact(name))
        values = [value for value in cells if value is not None]
        return self._checked(one_of(name, values), name) if values else None

    def length(self, name: str) -> int | None:
        """Bytes of the image of this name."""
        value = self.take(name)
        return None if value is None else len(value)

    def take_url(self, url: str) -> bytes | None:
        """The bytes in the row of a URL."""
        row = self._index.of_url(url)
        value = None if row is None else self._cell(row)
        return None if value is None else self._checked(value, url)

    def length_url(self, url: str) -> int | None:
        """Bytes of the image of a URL."""
        value = self.take_url(url)
        return None if value is None else len(value)

    def _checked(self, value: bytes, name: str) -> bytes:
        if len(value) > self._max_bytes:
            detail = f"{shown(name)}: {len(value)} bytes, at most {self._max_bytes} are taken"
            raise ImageRejected(ImageDrop.TOO_LARGE, detail)
        return value

    def where(self) -> str:
        """What is looked in, for a person."""
        by = "name or URL" if self.by_url else "name"
        first = os.path.basename(self._paths[0])
        more = f" and {len(self._paths) - 1} more" if len(self._paths) > 1 else ""
        return f"{first}{more} ({plural(len(self._rows), 'row')} of parquet, by {by})"

    def _add(self, number: int, path: str) -> str:
        """Index one file; returns the column of its bytes."""
        with _opened(path) as file:
            names, column = columns_of(file, path)
            for group in range(file.num_row_groups):
                _check_size(file.metadata.row_group(group), column, path)
                table = file.read_row_group(group, columns=names, use_threads=False)
                columns = {name: values_of(table.column(name)) for name in names}
                self._add_rows(columns, number, group)
        return column

    def _add_rows(self, columns: dict[str, list[Any]], number: int, group: int) -> None:
        urls = columns.pop("url", None)
        (names,) = columns.values() or ([None] * len(urls or ()),)
        for row, name in enumerate(names):
            if isinstance(name, str) and name and not is_junk(name):
                self._index.add(name, len(self._rows))
            if urls and isinstance(urls[row], str):
                self._index.add_url(urls[row], len(self._rows))
            self._files.append(number)
            self._groups.append(group)
            self._rows.append(row)

    def _cell(self, row: int) -> bytes | None:
        number, group, place = self._files[row], self._groups[row], self._rows[row]
        path, column = self._paths[number], self._columns[number]
        if self._kept is None or self._kept[0] != (number, group):
            self._kept = None
            with _opened(path) as file:
                table = file.read_row_group(group, columns=[column], use_threads=False)
            self._kept = (number, group), table.column(0)
        return image_bytes(self._kept[1][place].as_py())


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with (
        parquet_errors(path, "damaged parquet"),
        open_file(path) as raw,
        pq.ParquetFile(raw, pre_buffer=False) as file,
    ):
        yield file


def columns_of(file: Any, path: str) -> tuple[list[str], str]:
    """(columns to find images by, column of their bytes) of a parquet file.

    Raises:
        BadInputError: it has none of them.
    """
    schema = file.schema_arrow
    there = schema.names
    texts = [
        name
        for name in (*NAME_COLUMNS, "url")
        if name in there and is_text(schema.field(name).type)
    ]
    names = [name for name in texts if name != "url"][:1]
    names += ["url"] if "url" in texts else []
    data = [
        name for name in BYTES_COLUMNS if name in there and holds_images(schema.field(name).type)
    ][:1]
    if not names or not data:
        raise BadInputError(
            f"{path}: expected a column of text named {', '.join(NAME_COLUMNS)} or url and one of "
            f"encoded images named {', '.join(BYTES_COLUMNS)}, got {', '.join(map(_told, schema))}"
        )
    return names, data[0]


def _told(field: Any) -> str:
    """A column by its name and, in brackets, what it holds."""
    return f"{field.name} ({' '.join(str(plain_type(field.type)).split())[:60]})"


def is_of_images(path: str) -> bool:
    """Whether a parquet file has the columns that images are read from; a damaged one may have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as raw, pq.ParquetFile(raw, pre_buffer=False) as file:
            columns_of(file, path)
    except BadInputError:
        return False
    except (OSError, pa.ArrowException):  # told by name when it is opened
        return True
    return True


def _check_size(group: Any, column: str, path: str) -> None:
    for number in range(group.num_columns):
        part = group.column(number)
        root = part.path_in_schema.partition(".")[0]
        if root == column and part.total_uncompressed_size > _MAX_GROUP_BYTES:
            raise BadInputError(
                f"{path}: a row group of {part.total_uncompressed_size} bytes of images: write it "
                f"again with row groups of at most {_MAX_GROUP_BYTES}"
            )
