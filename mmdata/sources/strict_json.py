"""JSON that means one thing: UTF-8, no duplicate keys, no NaN or number that readers cannot hold,
no lone surrogates, not too deep.

msgspec keeps the last of duplicate keys in silence and lets invalid UTF-8 pass in values that it
skips, so every record goes through Python's parser once before its typed decode. Numbers are not
converted in that pass; it costs about 50 us on a 10 kB record.
"""

import json
from math import isinf
from typing import Any, Never

import msgspec

from mmdata.sources.base import RecordDropped
from schemas.reasons import DocumentDrop

#: Deeper records are refused. Python and msgspec give up at depths that vary with the version and
#: the caller's stack, and what a shard holds must not.
MAX_DEPTH = 100
#: A parsed value takes up to 60 times its bytes in memory (`[],[],…`), so a record's values are
#: bounded too; real ones come nowhere near. Counted as commas and brackets, also those in text.
MAX_COMMAS = 4_000_000
MAX_BRACKETS = 1_000_000
_LARGE_RECORD_BYTES = 1 << 20
#: What Python's json reads of an integer; others read less.
MAX_INTEGER_DIGITS = 4300
_LEAST_DIGITS_OF_INFINITY = 309
_RAW_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _DuplicateKeyError(Exception):
    pass


class _NotFiniteError(Exception):
    pass


class BadNumberError(ValueError):
    """A number that is JSON, and that readers refuse or take for infinity; the text says which."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(next(name for name in names if names.count(name) > 1))
    return fields


def _constant(name: str) -> Never:
    raise _NotFiniteError(name)


def check_integer(text: str) -> int:
    """For `parse_int` of Python's json: nothing is kept of a number, its shape is looked at.

    Raises:
        BadNumberError: it has more digits than Python's json reads.
    """
    if len(text) > MAX_INTEGER_DIGITS:
        digits = len(text.lstrip("-"))
        if digits > MAX_INTEGER_DIGITS:
            raise BadNumberError(f"an integer of {digits:,} digits")
    return 0


def check_real(text: str) -> int:
    """For `parse_float` of Python's json, likewise.

    Raises:
        BadNumberError: no double holds it: Python reads infinity, others nothing.
    """
    is_large = "e" in text or "E" in text or len(text) > _LEAST_DIGITS_OF_INFINITY
    if is_large and isinf(float(text)):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise BadNumberError(f"{shown}, which is beyond a double")
    return 0


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_int=check_integer,
    parse_float=check_real,
)
_KINDS = {"[": "array", '"': "string", "n": "null", "t": "boolean", "f": "boolean"}


def decode_object(record: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a record, each as raw JSON.

    Raises:
        RecordDropped: not UTF-8, not JSON, duplicate keys, NaN or infinity, a number that readers
            cannot hold, a lone surrogate, too deep, or not an object.
    """
    if len(record) > _LARGE_RECORD_BYTES:
        _check_values(record)
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordDropped(
            DocumentDrop.NOT_UTF8,
            f"expected UTF-8, got byte 0x{record[error.start]:02x} at {error.start}",
        ) from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RecordDropped(
            DocumentDrop.BAD_JSON, f"expected JSON, got {error.msg} at character {error.pos}"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except _DuplicateKeyError as error:
        raise RecordDropped(
            DocumentDrop.DUPLICATE_KEYS, f"key {str(error)[:80]!r} occurs twice in one object"
        ) from None
    except _NotFiniteError as error:
        raise RecordDropped(
            DocumentDrop.NON_FINITE, f"expected a finite number, got {error}"
        ) from None
    except BadNumberError as error:
        _check_object(text)
        raise RecordDropped(
            DocumentDrop.BAD_NUMBER, f"expected a number that readers can hold, got {error}"
        ) from None
    _check_object(text)
    # Brackets are at least as many as the depth: most records need no closer look.
    if record.count(b"[") + record.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise _too_deep()
    return _raw_fields(record, value)


def _check_object(text: str) -> None:
    """Refuse a value that is no object, by how it begins."""
    first = text.lstrip(" \t\r\n")[:1]
    if first != "{":
        raise RecordDropped(
            DocumentDrop.NOT_AN_OBJECT, f"expected an object, got {_KINDS.get(first, 'number')}"
        )


def _check_values(record: bytes) -> None:
    """Refuse a record whose values would not fit into a worker's memory."""
    commas = record.count(b",")
    brackets = record.count(b"[") + record.count(b"{")
    if commas > MAX_COMMAS or brackets > MAX_BRACKETS:
        raise RecordDropped(
            DocumentDrop.RECORD_TOO_LARGE,
            f"expected at most {MAX_COMMAS:,} commas and {MAX_BRACKETS:,} brackets, "
            f"got {commas:,} and {brackets:,}",
        )


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        nested = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for node in nested for child in node if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _too_deep() -> RecordDropped:
    return RecordDropped(DocumentDrop.TOO_DEEP, f"arrays or objects nest deeper than {MAX_DEPTH}")


def _raw_fields(record: bytes, value: dict[str, Any]) -> dict[str, msgspec.Raw]:
    try:
        return _RAW_OBJECT.decode(record)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise RecordDropped(
                DocumentDrop.LONE_SURROGATE, "a \\ud800-\\udfff escape without its pair"
            ) from None
        raise RecordDropped(DocumentDrop.BAD_JSON, str(error)) from None
