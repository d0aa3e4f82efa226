"""Tar headers of other writers, read and rebuilt.

Our own headers are constants but for name and size (`mmdata.shards.tar`). Everybody else's are
not: Python's tarfile, webdataset, img2dataset, GNU tar, bsdtar and Go fill in owners, times, pax
records. So a header is taken apart into its fields, each field is written again in the form it was
found in, and the result is compared with what is there. One changed byte always shows: outside
the checksum field it changes the sum, inside it the value or the form of the field. About 12 us a
header, 4 times what ours costs, so the walker tries ours first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmdata.shards.tar import BLOCK_BYTES
from mmdata.storage.ranges import Slices

ZERO_BLOCK = bytes(BLOCK_BYTES)

#: Type flags (POSIX pax(1), GNU tar manual "Basic Tar Format").
REGULAR = frozenset((b"0", b"\0", b"7"))
PAX = frozenset((b"x", b"g"))
LONG_NAME, LONG_LINK = b"L", b"K"
EXTENDED = PAX | {LONG_NAME, LONG_LINK}
#: Types whose size field says nothing about data that follows.
DATALESS = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))

KIND_NAMES = {
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "named pipe",
    b"S": "sparse file",
}

_MAGIC, _MAGIC_OFFSET = b"ustar", 257
_USTAR, _GNU, _V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
_FIELDS = (
    ("name", 0, 100, "text"),
    ("mode", 100, 108, "number"),
    ("uid", 108, 116, "number"),
    ("gid", 116, 124, "number"),
    ("size", 124, 136, "number"),
    ("mtime", 136, 148, "number"),
    ("checksum", 148, 156, "checksum"),
    ("type", 156, 157, "verbatim"),
    ("linkname", 157, 257, "text"),
    ("magic", 257, 265, "verbatim"),
    ("uname", 265, 297, "text"),
    ("gname", 297, 329, "text"),
    ("devmajor", 329, 337, "number"),
    ("devminor", 337, 345, "number"),
)
_USTAR_TAIL = (("prefix", 345, 500, "text"), ("padding", 500, 512, "zero"))
_GNU_TAIL = (
    ("atime", 345, 357, "number"),
    ("ctime", 357, 369, "number"),
    ("padding", 369, 512, "zero"),
)
_SPARSE_TAIL = (("sparse", 345, 512, "verbatim"),)

_OCTAL = re.compile(rb" *[0-7]*[ \0]{0,2}")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a header is not what its own fields make of it."""

    field: str
    offset: int
    expected: bytes
    got: bytes


@dataclass(frozen=True, slots=True)
class TarHeader:
    """A header block, taken apart.

    Attributes:
        name: prefix and name, bytes as they are.
        size: bytes of data; -1 when the field holds no number.
        kind: the type flag.
        summed: whether the checksum's value fits, which is all that other readers look at.
        difference: None when the block is, byte for byte, what its fields make.
    """

    name: bytes
    size: int
    kind: bytes
    summed: bool
    difference: Difference | None


def read_header(block: bytes) -> TarHeader:
    """Take a 512-byte block apart and compare it with what its fields make."""
    total = sum(block) - sum(block[148:156]) + 8 * 32
    stored = parse_number(block[148:156])
    size = parse_number(block[124:136])
    name = block[:100].split(b"\0", 1)[0]
    if block[257:265] == _USTAR:
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    difference = None
    for field, start, end, form in _layout(block):
        got = block[start:end]
        expected = _checksum(got, total) if form == "checksum" else _rewrite(got, form)
        if got != expected and (difference is None or field == "checksum"):
            difference = Difference(field, start, expected, got)
    size = -1 if size is None else size
    return TarHeader(name, size, block[156:157], stored == total, difference)


def is_header(block: bytes) -> bool:
    """Whether a block carries tar's magic and a fitting checksum: enough to resynchronise at."""
    if len(block) < BLOCK_BYTES or not block.startswith(_MAGIC, _MAGIC_OFFSET):
        return False
    return parse_number(block[148:156]) == sum(block) - sum(block[148:156]) + 8 * 32


def find_headers(data: Slices, begin: int, end: int) -> Iterator[int]:
    """Where whole headers stand in a range of bytes, on a block's boundary or not.

    Args:
        data: the tar.
        begin: offset of the first byte.
        end: offset behind the last.
    """
    magic = data.find(_MAGIC, begin + _MAGIC_OFFSET, end)
    while magic >= 0:
        start = magic - _MAGIC_OFFSET
        if start + BLOCK_BYTES <= end and is_header(data[start : start + BLOCK_BYTES]):
            yield start
        magic = data.find(_MAGIC, magic + 1, end)


def parse_number(field: bytes) -> int | None:
    """A number in octal digits or, behind a first byte of 0x80, in base 256; None if neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not _OCTAL.fullmatch(field):
        return None
    return int(digits, 8) if digits else 0


def parse_pax(body: bytes) -> dict[str, bytes] | None:
    """The `length key=value` records of a pax header; None when they do not add up."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 12)
        digits = body[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = body[position : position + length]
        key, equals, value = record[space + 1 - position : -1].partition(b"=")
        if len(record) != length or not equals or record[-1:] != b"\n":
            return None
        records[key.decode("utf-8", "replace")] = value
        position += length
    return records


def _layout(block: bytes) -> tuple[tuple[str, int, int, str], ...]:
    """The fields of the dialect that the magic names; what is none of them reads as ustar."""
    magic = block[257:265]
    if magic == _GNU:
        return _FIELDS + (_SPARSE_TAIL if block[156:157] == b"S" else _GNU_TAIL)
    if magic in (_USTAR, _V7):
        return _FIELDS + _USTAR_TAIL
    broken = ("magic", 257, 265, "magic")
    return (*_FIELDS[:9], broken, *_FIELDS[10:], *_USTAR_TAIL)


def _rewrite(got: bytes, form: str) -> bytes:
    """A field as its writer would have written the value that it holds."""
    if form == "verbatim":
        return got
    if form == "magic":
        return _USTAR
    if form == "zero":
        return bytes(len(got))
    if form == "text":
        return got.split(b"\0", 1)[0].ljust(len(got), b"\0")
    return got if got[0] == 0x80 else _rewrite_octal(got)


def _rewrite_octal(got: bytes) -> bytes:
    """An octal field: zero-filled or space-filled, ended by NUL, space, both or nothing."""
    value = parse_number(got)
    if value is None:
        return b"0" * (len(got) - 1) + b"\0"
    if not got.strip(b"\0"):
        return got  # left empty, as tarfile and GNU tar do with device numbers
    digits = got.rstrip(b" \0")
    ending = got[len(digits) :]
    fill = b" " if digits[:1] == b" " else b"0"
    return (b"%o" % value).rjust(len(digits), fill) + ending


def _checksum(got: bytes, total: int) -> bytes:
    """The checksum field in one of its three usual forms, the first when it is in none."""
    usual = b"%06o\0 " % total
    return got if got in (b"%07o\0" % total, b"%06o \0" % total) else usual
