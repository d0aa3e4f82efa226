"""Columns of parquet by what they hold, whatever Arrow packs it into.

Writers choose between plain, large, view and dictionary types for the same values, and wrap them in
extension types; a reader wants to know whether a column is text, bytes or an image, and its values.
Every reader of parquet asks here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdata.errors import BadInputError, words_of


@contextmanager
def parquet_errors(path: str, what: str) -> Iterator[None]:
    """Tell what goes wrong with a parquet file as the fault of the input.

    Args:
        path: of the file, for the message.
        what: the file then is: `damaged parquet`.

    Raises:
        BadInputError: what is done inside raised an error of Arrow or of reading.
    """
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{path}: {what}: {words_of(error)}; fetch it again") from error


def plain_type(kind: Any) -> Any:
    """The type that a column would have if nothing were packed: string, binary, list, struct.

    Args:
        kind: a type of pyarrow.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return pa.string()
    if kinds.is_large_binary(kind) or kinds.is_binary_view(kind) or _is_fixed_binary(kind):
        return pa.binary()
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if kinds.is_struct(kind):
        return pa.struct([(field.name, plain_type(field.type)) for field in kind])
    return kind


def _is_fixed_binary(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_fixed_size_binary(kind)) and not kinds.is_decimal(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    checks = (
        *(kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list),
        *(kinds.is_list_view, kinds.is_large_list_view),
    )
    return any(check(kind) for check in checks)


def is_text(kind: Any) -> bool:
    """Whether a column of a type holds text."""
    import pyarrow.types as kinds

    return bool(kinds.is_string(plain_type(kind)))


def holds_images(kind: Any) -> bool:
    """Whether a column holds encoded images: bytes, or datasets' Image feature {bytes, path}."""
    import pyarrow.types as kinds

    plain = plain_type(kind)
    if kinds.is_struct(plain):
        plain = next((field.type for field in plain if field.name == "bytes"), plain)
    return bool(kinds.is_binary(plain))


def image_bytes(value: Any) -> bytes | None:
    """The encoded image in a value of such a column; None where there is none."""
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def values_of(column: Any) -> list[Any]:
    """The values of an array as Python's.

    Text that is not UTF-8 keeps its bytes as lone surrogates (`surrogateescape`), so that it can be
    told and nothing else of the column is lost; a time that Python cannot hold comes as text.
    """
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # of which UnicodeDecodeError is one
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: Any) -> Any:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if kinds.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return _value(scalar.value)
    if kinds.is_struct(kind):
        return {field.name: _value(scalar[place]) for place, field in enumerate(kind)}
    if kinds.is_map(kind):
        return [(_value(item[0]), _value(item[1])) for item in scalar.values]
    if _is_list(kind):
        return [_value(item) for item in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    except (ValueError, OverflowError):
        return _as_text(scalar)


def _as_text(scalar: Any) -> str:
    """A time as text; one that is no date of ours as the number that it is stored as."""
    try:
        return str(scalar)
    except (ValueError, OverflowError):
        return str(scalar.value)
