"""Rows of delimited text (CSV, TSV), with no row merged with another in silence.

Where fields may be quoted, a quoted field may hold delimiters and line ends, and a quote inside it
is doubled (RFC 4180, as Python's csv reads it). A stray quote would make one field of many rows, so
a field that is never closed, that swallows more than a record may hold, or that ends in the middle
of text after several lines is an error that names the line where the field begins. Where fields are
not quoted, a quote is text and a line is a row.

Lines end at LF or CRLF, or at CR where the first line does. A line without anything is no row.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped
from mmdata.sources.records import Overlong, refuse_other_unicode
from schemas.reasons import DocumentDrop

_CHUNK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_QUOTE = b'"'
_LINE_END = re.compile(rb"\r\n?|\n")
REMEDY = (
    'close it and double the quotes that are text (""), or read quotes as text with --quoting none'
)


@dataclass(frozen=True, slots=True)
class Cells:
    """The fields of a row, and the line where it begins (the first is 1)."""

    line: int
    fields: list[bytes]


@dataclass(frozen=True, slots=True)
class _LongLine:
    """A line over the limit; its bytes were not kept, but for how many of them were quotes."""

    num_bytes: int
    quotes: int


@dataclass(slots=True)
class _Row:
    """A row in the making: whole as soon as no quoted field is open."""

    delimiter: bytes
    line_end: bytes
    line: int
    fields: list[bytes] = field(default_factory=list)
    opened: int = 0
    """The line where the field that is open begins; 0: none is."""
    num_bytes: int = 0
    spans_from: int = 0
    """The line where its first field of several lines begins; 0: it has none."""
    problem: str = ""
    _open: list[bytes] = field(default_factory=list)

    def add(self, line: bytes, number: int) -> None:
        """Go on with a line, which has lost its end."""
        self.num_bytes += len(line) + 1
        end = len(line) - line.endswith(b"\r")  # of CRLF; inside quotes it is text
        at = 0
        while True:
            at = self._quoted(line, at, number) if self._begins(line, at) else self._bare(line, at)
            if self.opened:
                return
            if at < end and line[at : at + 1] != self.delimiter:
                self.problem = f"line {number}: text behind a closing quote; {REMEDY}"
                behind = line.find(self.delimiter, at)
                at = end if behind < 0 else behind
            if at >= end:
                return
            at += 1

    def _begins(self, line: bytes, at: int) -> bool:
        return bool(self.opened) or line[at : at + 1] == _QUOTE

    def _bare(self, line: bytes, at: int) -> int:
        """Take a field without quotes; returns where it ends."""
        end = line.find(self.delimiter, at)
        if end < 0:
            end = max(len(line) - line.endswith(b"\r"), at)
        self.fields.append(line[at:end])
        return end

    def _quoted(self, line: bytes, at: int, number: int) -> int:
        """Take a quoted field, or what the line has of it; returns where it ends."""
        if not self.opened:
            self.opened, at = number, at + 1
        close = _closing_quote(line, at)
        if close < 0:
            self._open += (line[at:], self.line_end)
            self.spans_from = self.spans_from or self.opened
            return len(line)
        self._open.append(line[at:close])
        self.fields.append(b"".join(self._open).replace(b'""', _QUOTE))
        self._open, self.opened = [], 0
        return close + 1


def _closing_quote(line: bytes, at: int) -> int:
    """Where the quote is that ends a field; -1 where the field goes on in the next line."""
    while True:
        at = line.find(_QUOTE, at)
        if at < 0 or line[at + 1 : at + 2] != _QUOTE:
            return at
        at += 2


def read_delimited(
    file: BinaryIO, label: str, delimiter: bytes, limit: int, *, quoted: bool
) -> Iterator[Cells | RecordDropped | Overlong]:
    """The rows of a file, the one that names the columns included.

    Args:
        file: at its beginning.
        label: of the file, for messages.
        delimiter: one byte.
        limit: bytes of a row; of a longer one only its size comes.
        quoted: whether fields may stand in double quotes.

    Raises:
        BadInputError: a quoted field is never closed, or has swallowed more than its row.
    """
    row: _Row | None = None
    reader = _LineReader(file, label)
    for number, line in enumerate(reader.lines(limit), start=1):
        if isinstance(line, _LongLine):
            if row is not None or (quoted and line.quotes % 2):
                raise _swallows(label, row.opened if row else number, limit)
            yield Overlong(line.num_bytes)
            continue
        if not quoted or (row is None and _QUOTE not in line):
            if line := line.removesuffix(b"\r"):
                yield Cells(number, line.split(delimiter))
            continue
        row = row or _Row(delimiter, reader.line_end, number)
        row.add(line, number)
        if row.opened and row.num_bytes <= limit:
            continue
        if row.opened:
            raise _swallows(label, row.opened, limit)
        yield _whole(row, label, limit)
        row = None
    if row is not None:
        raise BadInputError(
            f"{label}: line {row.opened}: a quoted field begins here and is still open at the end "
            f"of the file; {REMEDY}"
        )


def _swallows(label: str, line: int, limit: int) -> BadInputError:
    return BadInputError(
        f"{label}: line {line}: a quoted field begins here and is still open {limit:,} bytes later "
        f"(--max-record-bytes); {REMEDY}"
    )


def _whole(row: _Row, label: str, limit: int) -> Cells | RecordDropped | Overlong:
    """A row that has ended; one that does not keep to the quotes is dropped while it is alone."""
    if row.problem and row.spans_from:
        raise BadInputError(
            f"{label}: line {row.spans_from}: a quoted field begins here, goes on over lines and "
            f"is followed by text ({row.problem.partition(':')[0]}); {REMEDY}"
        )
    if row.problem:
        return RecordDropped(DocumentDrop.BAD_SCHEMA, row.problem)
    if row.num_bytes > limit + 1:
        return Overlong(row.num_bytes - 1)
    return Cells(row.line, row.fields)


class _LineReader:
    """Lines of a file in bounded memory.

    Attributes:
        line_end: what lines end at, known with the first of them.
    """

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file = file
        self._label = label
        self.line_end = b"\n"

    def lines(self, limit: int) -> Iterator[bytes | _LongLine]:
        """The lines without their ends; of CRLF, the CR is left."""
        chunk = self._first_chunk()
        parts: list[bytes] = []
        length = quotes = 0
        while chunk:
            *ended, rest = chunk.split(self.line_end)
            for piece in ended:
                if not parts:
                    yield piece if len(piece) <= limit else _long(piece, 0, 0)
                    continue
                yield self._joined(parts, piece, length, quotes, limit)
                parts, length, quotes = [], 0, 0
            if rest:
                length += len(rest)
                quotes += rest.count(_QUOTE)
                parts.append(rest if length <= limit else b"")
            chunk = self._file.read(_CHUNK_BYTES)
        if parts:
            yield self._joined(parts, b"", length, quotes, limit)

    @staticmethod
    def _joined(
        parts: list[bytes], last: bytes, length: int, quotes: int, limit: int
    ) -> bytes | _LongLine:
        if length + len(last) > limit:
            return _long(last, length, quotes)
        return b"".join([*parts, last])

    def _first_chunk(self) -> bytes:
        """The first bytes, without their byte order mark; finds out what ends a line."""
        chunk = self._file.read(_CHUNK_BYTES)
        refuse_other_unicode(chunk[:4], self._label)
        if chunk.endswith(b"\r"):
            chunk += self._file.read(1)
        carriage, feed = chunk.find(b"\r"), chunk.find(b"\n")
        if carriage >= 0 and (feed < 0 or carriage < feed - 1):
            self.line_end = b"\r"
        return chunk.removeprefix(_BOM)


def _long(last: bytes, length: int, quotes: int) -> _LongLine:
    return _LongLine(length + len(last), quotes + last.count(_QUOTE))


def swallowed_line(cells: Cells, delimiter: bytes, url_place: int) -> int:
    """The line of a whole row inside a quoted field, which a stray quote has made text; 0: none.

    A row is told by its number of fields, with an address in the column of URLs.

    Args:
        cells: of the outer row, with as many fields as there are columns.
        delimiter: one byte.
        url_place: the column of URLs, from 0.
    """
    line, fields = cells.line, cells.fields
    for place, value in enumerate(fields):
        *firsts, last = _LINE_END.split(value)
        for number, text in enumerate([*firsts, last] if firsts else ()):
            before = fields[:place] if number == 0 else []
            behind = fields[place + 1 :] if number == len(firsts) else []
            inner = text.split(delimiter)
            at = url_place - len(before)
            # What the line has of its own: not the beginning of the field, not its end.
            own = range(int(number == 0), len(inner) - int(number == len(firsts)))
            as_many = len(before) + len(inner) + len(behind) == len(fields)
            if as_many and at in own and _is_row(inner, at):
                return line + number
        line += len(firsts)
    return 0


def _is_row(cells: list[bytes], url: int) -> bool:
    """Whether a line of text reads as a row: in prose, a blank follows a comma."""
    address = cells[url].strip(b' "').lower().startswith((b"http://", b"https://"))
    return address and not any(cell.startswith(b" ") for cell in cells[1:])
