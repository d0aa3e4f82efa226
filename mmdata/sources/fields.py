"""Fields of a record by name: `a.b` is field b of the object a, unless a field is called `a.b`.

Values are Python's, or raw JSON as far as a record was taken apart.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

import msgspec

#: Integers up to here are the same number as a double.
_EXACT_INTEGERS = 2.0**53
_DEEPEST_LISTED = 3
_NEAREST_CUTOFF = 0.5
_MOST_LISTED = 200
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def as_raw(value: Any) -> msgspec.Raw:
    """A value as raw JSON; of what JSON has no form for, its text form."""
    if isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except (TypeError, UnicodeEncodeError, ValueError, OverflowError):
        return msgspec.Raw(msgspec.json.encode(repr(value)))


def has_field(fields: Mapping[str, Any], path: str) -> bool:
    """Whether a record has a field of this name, be it null."""
    return _find(fields, path) is not None


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The value of a field as Python's; None where there is none, or null."""
    found = _find(fields, path)
    return None if found is None else found[0]


def _find(fields: Mapping[str, Any], path: str) -> tuple[Any] | None:
    """The value of a field, in a tuple, since it may be null."""
    if path in fields:
        return (msgspec.json.decode(as_raw(fields[path])),)
    for place, letter in enumerate(path):
        head, rest = path[:place], path[place + 1 :]
        if letter != "." or head not in fields:
            continue
        inner = msgspec.json.decode(as_raw(fields[head]))
        found = _find(inner, rest) if isinstance(inner, dict) else None
        if found is not None:
            return found
    return None


def text_of(value: Any) -> str | None:
    """A value as the text that names its group: 17, 17.0 and "17" are one; None for no value.

    Blank text is no value either.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_INTEGERS:
        value = int(value)
    return None if value is None else msgspec.json.encode(value).decode()


def names_of(fields: Mapping[str, Any]) -> Iterator[str]:
    """The names of a record's fields, those inside objects as `a.b`."""
    yield from fields
    for name, value in fields.items():
        if isinstance(value, msgspec.Raw) and not bytes(value).lstrip().startswith(b"{"):
            continue
        yield from _inner_names(name, msgspec.json.decode(as_raw(value)), 1)


def _inner_names(name: str, value: Any, depth: int) -> Iterator[str]:
    if not isinstance(value, dict) or depth > _DEEPEST_LISTED:
        return
    for inner, below in value.items():
        yield f"{name}.{inner}"
        yield from _inner_names(f"{name}.{inner}", below, depth + 1)


def nearest(name: str, there: list[str]) -> str:
    """The name that is most like another; empty where none is."""
    folded = {other.casefold(): other for other in reversed(there)}
    close = get_close_matches(name.casefold(), list(folded), n=1, cutoff=_NEAREST_CUTOFF)
    if close:
        return folded[close[0]]
    # `patient` for `meta.patient`: only the last part was named, or another object's.
    last = name.casefold().rpartition(".")[2]
    ends = {other.casefold().rpartition(".")[2]: other for other in reversed(there)}
    close = get_close_matches(last, list(ends), n=1, cutoff=_NEAREST_CUTOFF)
    return ends[close[0]] if close else ""


@dataclass(frozen=True, slots=True)
class WantedField:
    """A field that an option names.

    Attributes:
        flag: the option.
        path: of the field.
        valued: it is of use only where it has a value; else it need only be there.
    """

    flag: str
    path: str
    valued: bool = True

    def __str__(self) -> str:
        return f"{self.flag} {self.path}"

    def is_in(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record has it."""
        if self.valued:
            return text_of(value_at(fields, self.path)) is not None
        return has_field(fields, self.path)


class FieldSearch:
    """Looks for fields in records, for each until one record has it.

    Attributes:
        left: fields that no record has had yet.
        found: the others.
        there: names of fields that records have, of a number of them.
    """

    def __init__(self, wanted: Iterable[WantedField]) -> None:
        self.left = list(wanted)
        self.found: list[WantedField] = []
        self.there: dict[str, None] = {}

    def look(self, fields: Mapping[str, Any]) -> None:
        """Look at one record's fields."""
        if not self.left:
            return
        if len(self.there) < _MOST_LISTED:
            self.there |= dict.fromkeys(islice(names_of(fields), _MOST_LISTED))
        self.see([wanted for wanted in self.left if wanted.is_in(fields)])

    def look_at_record(self, record: bytes) -> None:
        """Look at a record that is a JSON object; what is none has no fields."""
        if self.left:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.look(_FIELDS.decode(record))

    def see(self, seen: Iterable[WantedField]) -> None:
        """Note fields that a record has."""
        for wanted in seen:
            self.left.remove(wanted)
            self.found.append(wanted)
