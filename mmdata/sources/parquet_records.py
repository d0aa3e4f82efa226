"""Rows of parquet files as records of JSON, by row group and never a whole file.

A row becomes the JSON object of its columns, so that every format is parsed by one parser wherever
it came from; binary values (images) become base64 on the way, which costs about 1 ms a megabyte.
A row group is read in small batches: memory is that of a batch and of one page a column.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import msgspec

from mmdata.errors import BadInputError

_BATCH_ROWS = 32
MAGIC = b"PAR1"


def count_row_groups(file: BinaryIO, label: str) -> int:
    """How many row groups a file has.

    Raises:
        BadInputError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.ParquetFile(file).num_row_groups)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{label}: damaged parquet file: {error}; fetch it again") from error


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened as file:
            table = pq.ParquetFile(file)
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[row_group]):
                for row in batch.to_pylist():
                    yield msgspec.json.encode(row, enc_hook=_as_text)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{label}: damaged parquet file: {error}; fetch it again") from error


def _as_text(value: Any) -> str:
    """What JSON has no form for, as its text."""
    return str(value)
