"""A JSON array of any size, cut into its elements without parsing them.

Structure is found with numpy, a chunk at a time: positions of quotes, backslashes, brackets and
commas, then which quotes are escaped, what lies outside strings, and how deep. That is 200 MB/s
memory is that of a chunk and one element, and the places of
elements let several readers share one file. What is inside an element is not judged here: an
element that is not JSON is dropped when it is parsed.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmdata.errors import BadInputError

_CHUNK_BYTES = 1 << 18
_BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COMMA = range(1, 6)
_KINDS = dict(
    zip(b'"\\[{]},', (_QUOTE, _BACKSLASH, _OPEN, _OPEN, _CLOSE, _CLOSE, _COMMA), strict=True)
)
_CLASSES = bytes(_KINDS.get(character, 0) for character in range(256))

Positions = NDArray[np.int64]


class _Structure:
    """Where commas part the elements of an array and where it ends, over its chunks in order."""

    def __init__(self) -> None:
        self._depth = 1
        self._in_string = 0
        self._escaping = 0

    @property
    def in_string(self) -> bool:
        """Whether the chunk ended inside a string."""
        return bool(self._in_string)

    def cuts(self, chunk: bytes) -> tuple[Positions, int | None]:
        """Commas between elements in a chunk, and where the array ends, as offsets into it."""
        codes = np.frombuffer(chunk.translate(_CLASSES), np.uint8)
        places = np.flatnonzero(codes)
        kinds = codes[places]
        places, kinds = self._without_escaped(places, kinds, len(chunk))
        quotes = np.cumsum(kinds == _QUOTE) + self._in_string
        if len(quotes):
            self._in_string = int(quotes[-1]) & 1
        outside = (quotes & 1 == 0) & (kinds != _QUOTE)
        places, kinds = places[outside], kinds[outside]
        steps = (kinds == _OPEN).astype(np.int64) - (kinds == _CLOSE)
        depths = np.cumsum(steps) + self._depth
        if len(depths):
            self._depth = int(depths[-1])
        commas = places[(kinds == _COMMA) & (depths == 1)]
        ends = places[(kinds == _CLOSE) & (depths == 0)]
        if not len(ends):
            return commas, None
        return commas[commas < ends[0]], int(ends[0])

    def _without_escaped(
        self, places: Positions, kinds: NDArray[np.uint8], size: int
    ) -> tuple[Positions, NDArray[np.uint8]]:
        """Take out backslashes, and the quotes that they escape."""
        slashes = kinds == _BACKSLASH
        escaped_first, self._escaping = self._escaping, 0
        if not slashes.any() and not escaped_first:
            return places, kinds
        at = places[slashes]
        # Within a run of backslashes every other one escapes what follows it.
        begins = np.flatnonzero(np.diff(at, prepend=-2) != 1)
        number = np.arange(len(at)) - np.repeat(begins, np.diff(begins, append=len(at)))
        if escaped_first and len(at) and at[0] == 0:
            first_run = slice(0, int(begins[1]) if len(begins) > 1 else len(at))
            number[first_run] += 1
        escapes = np.zeros(size + 1, bool)
        escapes[at + 1] = number & 1 == 0
        escapes[0] = bool(escaped_first)
        self._escaping = int(escapes[size])
        kept = ~slashes & ~(escapes[places] & (kinds == _QUOTE))
        return places[kept], kinds[kept]


def read_elements(file: BinaryIO, label: str, limit: int) -> Iterator[bytes | int]:
    """The elements of a whole array, in order.

    Args:
        file: at its beginning.
        label: of the file, for messages.
        limit: bytes of an element; of a longer one only its size comes.

    Yields:
        The text of an element without the blanks around it, or the size of one that is too long.

    Raises:
        BadInputError: the array is cut off, has nothing where an element should be, or is followed
            by something.
    """
    position = _behind_bracket(file, label)
    structure, element = _Structure(), _Element(limit, label)
    number = 0
    while chunk := file.read(_CHUNK_BYTES):
        commas, close = structure.cuts(chunk)
        begin = 0
        for comma in commas.tolist():
            yield element.take(chunk[begin:comma], position + comma)
            number, begin = number + 1, comma + 1
        if close is None:
            element.add(chunk[begin:])
            position += len(chunk)
            continue
        element.add(chunk[begin:close])
        if number or not element.blank:  # else the array is empty
            yield element.take(b"", position + close)
        _check_rest(file, chunk[close + 1 :], label, position + close + 1)
        return
    raise _cut_off(label, position, structure, number)


def read_range(
    file: BinaryIO, label: str, start: int, end: int, limit: int
) -> Iterator[bytes | int]:
    """The elements of a range of an array, as `cut_ranges` gave it; see `read_elements`."""
    file.seek(start)
    structure, element = _Structure(), _Element(limit, label)
    position = start
    while position < end and (chunk := file.read(min(_CHUNK_BYTES, end - position))):
        commas, _ = structure.cuts(chunk)
        begin = 0
        for comma in commas.tolist():
            yield element.take(chunk[begin:comma], position + comma)
            begin = comma + 1
        element.add(chunk[begin:])
        position += len(chunk)
    yield element.take(b"", position)


def cut_ranges(file: BinaryIO, label: str, range_bytes: int) -> list[tuple[int, int]]:
    """Cut an array at commas between elements, into ranges of at least so many bytes.

    Args:
        file: at its beginning.
        label: of the file, for messages.
        range_bytes: of a range, all but the last.

    Raises:
        BadInputError: the array is cut off, or followed by something.
    """
    begin = position = _behind_bracket(file, label)
    structure = _Structure()
    ranges = []
    while chunk := file.read(_CHUNK_BYTES):
        commas, close = structure.cuts(chunk)
        for comma in (commas + position).tolist():
            if comma - begin >= range_bytes:
                ranges.append((begin, comma))
                begin = comma + 1
        if close is not None:
            _check_rest(file, chunk[close + 1 :], label, position + close + 1)
            return [*ranges, (begin, position + close)]
        position += len(chunk)
    raise _cut_off(label, position, structure, None)


def _cut_off(label: str, position: int, structure: _Structure, number: int | None) -> BadInputError:
    where = "inside a string" if structure.in_string else "before it is closed"
    record = "" if number is None else f", in record {number}"
    return BadInputError(
        f"{label}: the JSON array ends at byte {position} {where}{record}; it is cut off: fetch it "
        "again"
    )


class _Element:
    """The element that is being gathered."""

    def __init__(self, limit: int, label: str) -> None:
        self._limit = limit
        self._label = label
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        if not self._size:
            piece = piece.lstrip(_BLANK)
        self._size += len(piece)
        if self._size <= self._limit + _CHUNK_BYTES:  # blanks at the end do not count
            self._parts.append(piece)
        else:
            self._parts = []

    @property
    def blank(self) -> bool:
        return self._size == 0

    def take(self, last: bytes, position: int) -> bytes | int:
        """The whole element, with its last piece; `position` is where it ends."""
        self.add(last)
        text = b"".join(self._parts).rstrip(_BLANK)
        size = len(text) if self._parts else self._size
        self._parts, self._size = [], 0
        if size == 0:
            raise BadInputError(
                f"{self._label}: a record is missing at byte {position} of the JSON array, "
                "between commas or brackets"
            )
        return text if size <= self._limit else size


def _behind_bracket(file: BinaryIO, label: str) -> int:
    """Skip a byte order mark, blanks and the opening bracket; returns how many bytes that was."""
    position = 0
    while byte := file.read(1):
        position += 1
        if byte == b"[":
            return position
        if byte not in _BLANK and byte != _BOM[position - 1 : position]:
            break
    raise BadInputError(f"{label}: expected a JSON array")


def _check_rest(file: BinaryIO, rest: bytes, label: str, position: int) -> None:
    """Behind the array there are blanks only; reading on also checks a compressed file's CRC."""
    rest = rest or file.read(_CHUNK_BYTES)
    while rest:
        if rest.strip(_BLANK):
            raise BadInputError(
                f"{label}: there is more behind the end of the JSON array, at byte {position}"
            )
        position += len(rest)
        rest = file.read(_CHUNK_BYTES)
