"""Lists as columns of tables hold them: a JSON array in a text, or an object of equal lists.

Parquet that was written from a CSV or a database has `conversations` as JSON in a string, and
`datasets` made a struct of lists of a sequence of objects. Both are the list that they stand for.
"""

import msgspec

from mmdata.sources.base import RecordDropped
from mmdata.sources.strict_json import decode_object
from schemas.reasons import DocumentDrop

#: Fields that are lists in the formats that are read.
_LISTS = (
    *("conversations", "messages", "texts", "images"),
    *("text_list", "image_info", "similarity_matrix"),
)
#: A field that may be one text too, which then is no JSON.
_MAY_BE_TEXT = ("images",)
_SHOWN_CHARACTERS = 40
_COLUMNS = msgspec.json.Decoder(dict[str, list[msgspec.Raw]])


def unpack(fields: dict[str, msgspec.Raw]) -> bool:
    """Put lists in the place of what stands for them; whether there was any.

    Raises:
        RecordDropped: a text that is to be a list is no JSON, or columns do not fit.
    """
    changed = False
    for name in _LISTS:
        if name in fields and (found := _unpacked(name, bytes(fields[name]))) is not None:
            fields[name] = msgspec.Raw(found)
            changed = True
    return changed


def _unpacked(name: str, value: bytes) -> bytes | None:
    """The list that a value stands for, as JSON; None where it stands for itself."""
    if value.startswith(b'"'):
        return _from_text(name, msgspec.json.decode(value, type=str))
    return _from_columns(name, value) if value.startswith(b"{") else None


def _from_text(name: str, text: str) -> bytes | None:
    try:
        found = bytes(decode_object(b'{"list":%b}' % text.encode())["list"])
    except RecordDropped as dropped:
        if name in _MAY_BE_TEXT:
            return None
        why = dropped.detail  # where it is no JSON, of a place in what was put around the text
        if dropped.reason == DocumentDrop.BAD_JSON:
            why = f"expected JSON, got {text[:_SHOWN_CHARACTERS]!r}"
        detail = f"$.{name}: a text that is to hold a list: {why}"
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, detail) from None
    if found.startswith(b"{"):
        return _from_columns(name, found) or found
    return found if found.startswith(b"[") else None


def _from_columns(name: str, value: bytes) -> bytes | None:
    """{"from": [a, b], "value": [c, d]} as [{"from": a, "value": c}, …].

    Raises:
        RecordDropped: the columns are of several lengths, and it can be nothing else.
    """
    try:
        columns = _COLUMNS.decode(value)
    except msgspec.DecodeError:
        return None
    if not columns:
        return None
    if len({len(values) for values in columns.values()}) > 1:
        if name in _MAY_BE_TEXT:
            return None
        got = ", ".join(f"{len(values)} of {key[:40]}" for key, values in columns.items())
        detail = f"$.{name}: expected columns of one length, got {got[:200]}"
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, detail)
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return msgspec.json.encode(rows)
