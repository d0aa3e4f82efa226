"""Rows of parquet files as records of JSON, by row group and never a whole file.

A row becomes the JSON object of its columns, so that every format is parsed by one parser wherever
it came from; binary values (images) become base64 on the way, which costs about 1 ms a megabyte.
A row group is read in small batches: memory is that of a batch and of one page a column.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import msgspec

from mmdata.errors import BadInputError
from mmdata.sources.arrow_columns import parquet_errors, values_of

_BATCH_ROWS = 32
MAGIC = b"PAR1"


def count_row_groups(file: BinaryIO, label: str) -> int:
    """How many row groups a file has.

    Raises:
        BadInputError: it is damaged, or two of its columns have one name.
    """
    import pyarrow.parquet as pq

    with parquet_errors(label, "damaged parquet file"):
        table = pq.ParquetFile(file, pre_buffer=False)
        names = table.schema_arrow.names
    if len(set(names)) < len(names):
        raise BadInputError(f"{label}: two columns have one name")
    return int(table.num_row_groups)


def read_rows(
    opened: AbstractContextManager[BinaryIO], label: str, row_group: int
) -> Iterator[bytes]:
    """The rows of a row group as JSON objects, in order.

    Args:
        opened: the file, opened to read.
        label: of the file, for messages.
        row_group: from 0.

    Raises:
        BadInputError: the row group is damaged.
    """
    import pyarrow.parquet as pq

    with parquet_errors(label, "damaged parquet file"), opened as file:
        table = pq.ParquetFile(file, pre_buffer=False)
        for batch in table.iter_batches(
            batch_size=_BATCH_ROWS, row_groups=[row_group], use_threads=False
        ):
            names = batch.schema.names
            columns = [values_of(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield _as_json(dict(zip(names, values, strict=True)))


def _as_json(row: dict[str, Any]) -> bytes:
    """A row as the bytes of an object; text that is not UTF-8 stays so, and is told when parsed."""
    try:
        return msgspec.json.encode(row, enc_hook=str)
    except UnicodeEncodeError:
        text = json.dumps(row, ensure_ascii=False, default=_plain)
        return text.encode("utf-8", "surrogateescape")


def _plain(value: Any) -> Any:
    """What Python's json does not know, as msgspec would write it."""
    return msgspec.to_builtins(value, enc_hook=str)
