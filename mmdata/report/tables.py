"""The samples table of one shard as columns: what most of a report is made from.

A table is 100 kB for 1,000 documents, so one is in memory at a time and the size of a dataset does
not matter. Lists come flat with offsets; numbers as Python's, which
`mmdata.training_view.selection` takes.
"""

import math
from dataclasses import dataclass
from typing import Any

from mmdata.errors import BadInputError
from mmdata.storage.files import read_bytes
from mmdata.storage.urls import is_url
from schemas.manifest import SAMPLES_COLUMNS

_LISTS = ("matched", "similarity", "margin", "image_bytes", "width", "height", "format")
_WANTED = (
    *("key", "offset", "size", "sha256", "source_file", "source_member", "source_record"),
    *("sentences", "text_bytes", *_LISTS, "reencoded"),
)


@dataclass(frozen=True, slots=True)
class ImageRows:
    """What selection asks of a table.

    Attributes:
        offsets: where the images of each document start among all; one more than documents.
        sentences: of each document.
        image_bytes, matched, similarity: of each image.
    """

    offsets: list[int]
    sentences: list[int]
    image_bytes: list[int]
    matched: list[int]
    similarity: list[float]


class SamplesTable:
    """One samples table.

    Attributes:
        num_documents: its rows.

    Raises:
        BadInputError: it cannot be read, lacks a column, or its lists do not fit each other.
    """

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            source = pa.BufferReader(read_bytes(path)) if is_url(path) else path
            file = pq.ParquetFile(source, pre_buffer=False)
            table = file.read(columns=list(_WANTED), use_threads=False)
            self._columns = {name: table.column(name).combine_chunks() for name in _WANTED}
        except (OSError, KeyError, pa.ArrowException) as error:
            raise BadInputError(f"{path}: not a samples table: {error}") from error
        self._check_types()
        self.num_documents = int(table.num_rows)
        self.offsets: list[int] = self._offsets("matched")
        for name in (*_LISTS, "reencoded"):
            if self._offsets(name) != self.offsets:
                raise BadInputError(f"{path}: `{name}` and `matched` differ in length in a row")

    def column(self, name: str) -> list[Any]:
        """A plain column, or a list column with its lists one behind the other.

        Raises:
            BadInputError: a value is missing (but for a margin, or a similarity that shards by
                others do not record), or a text is not UTF-8.
        """
        array = self._columns[name]
        if SAMPLES_COLUMNS[name][0].startswith("list<"):
            array = array.flatten()
        if array.null_count and name not in ("margin", "similarity"):
            raise BadInputError(f"{self.path}: a value of `{name}` is missing")
        try:
            values: list[Any] = array.to_pylist()
        except UnicodeDecodeError as error:
            raise BadInputError(f"{self.path}: `{name}` is not UTF-8") from error
        return values

    def image_rows(self) -> ImageRows:
        """What selection asks for."""
        names = ("sentences", "image_bytes", "matched")
        columns = {name: self.column(name) for name in names}
        return ImageRows(self.offsets, similarity=self.similarity(), **columns)

    def similarity(self) -> list[float]:
        """The similarity of each image with its sentence; NaN where it is not recorded."""
        return [math.nan if value is None else value for value in self.column("similarity")]

    def row(self, number: int) -> dict[str, Any]:
        """One row: values, and lists of values.

        Raises:
            BadInputError: a text of it is not UTF-8.
        """
        try:
            return {name: array[number].as_py() for name, array in self._columns.items()}
        except UnicodeDecodeError as error:
            raise BadInputError(f"{self.path}: row {number} is not UTF-8") from error

    def _check_types(self) -> None:
        for name, array in self._columns.items():
            inner = getattr(array.type, "value_type", None)
            got = str(array.type) if inner is None else f"list<{inner}>"
            if got != SAMPLES_COLUMNS[name][0]:
                raise BadInputError(
                    f"{self.path}: expected `{name}` to be {SAMPLES_COLUMNS[name][0]}, got {got}"
                )

    def _offsets(self, name: str) -> list[int]:
        array = self._columns[name]
        first = array.offsets[0].as_py() if len(array) else 0
        return [value - first for value in array.offsets.to_pylist()] if len(array) else [0]
