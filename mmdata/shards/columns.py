"""Arrow columns built from their buffers, in the memory layout that Arrow's format fixes.

`pa.array` and `Table.from_pylist` look whether a value is a pandas one, and so import pandas where
it is installed: 0.6 s and 45 MiB in every worker, for a table of a thousand rows.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS = {"int32": np.int32, "int64": np.int64, "double": np.float64}


def arrow_array(kind: str, values: Sequence[Any]) -> "pa.Array":
    """A column.

    Args:
        kind: `string`, `bool`, `int32`, `int64` or `double`, or `list<…>` of one of them.
        values: of the column; None, where a value is missing, in numbers only.
    """
    import pyarrow as pa

    if not kind.startswith("list<"):
        return _plain(kind, values)
    items = [item for value in values for item in value]
    inner = _plain(kind.removeprefix("list<").removesuffix(">"), items)
    buffers = [None, pa.py_buffer(_offsets(values))]
    return pa.Array.from_buffers(pa.list_(inner.type), len(values), buffers, children=[inner])


def _plain(kind: str, values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    size = len(values)
    if kind == "string":
        encoded = [value.encode("utf-8") for value in values]
        buffers = [None, pa.py_buffer(_offsets(encoded)), pa.py_buffer(b"".join(encoded))]
        return pa.Array.from_buffers(pa.string(), size, buffers)
    if kind == "bool":
        return pa.Array.from_buffers(pa.bool_(), size, [None, pa.py_buffer(_bits(values))])
    known = [value is not None for value in values]
    validity = None if all(known) else pa.py_buffer(_bits(known))
    numbers = [0 if value is None else value for value in values]
    data = pa.py_buffer(np.array(numbers, dtype=_NUMBERS[kind]))
    kinds = {"int32": pa.int32(), "int64": pa.int64(), "double": pa.float64()}
    return pa.Array.from_buffers(kinds[kind], size, [validity, data])


def _offsets(values: Sequence[Any]) -> NDArray[np.int32]:
    """Where each value starts among all, and where the last ends."""
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"a column of {offsets[-1]} bytes or items: a shard holds 2**31 at most")
    return offsets.astype(np.int32)


def _bits(values: Sequence[bool]) -> NDArray[np.uint8]:
    """One bit a value, the least significant first."""
    return np.packbits(np.array(values, dtype=np.bool_), bitorder="little")


def text_columns(texts: Sequence[bytes]) -> dict[str, Any]:
    """What the samples table says of a sample's sentences, which come as UTF-8."""
    return {
        "sentences": len(texts),
        "text_bytes": sum(map(len, texts)),
        "text_sha256": hashlib.sha256(b"".join(text + b"\n" for text in texts)).hexdigest(),
    }
