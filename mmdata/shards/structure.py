"""Walk the 512-byte blocks of a tar and say whatever is not as a writer would have left it.

Python's tarfile, and every reader built on it, stops without a word at a damaged header: the rest
of the shard is gone and nobody knows. Here every header is rebuilt and compared byte for byte, the
padding and the end mark are checked, and after damage the walk goes on at the next header that is
whole, so that what other readers lose can be counted. One pass over headers and padding, nothing
of the data is read: about 2.5 us a member (400,000 members/s) for headers like ours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from mmdata.shards import dialect
from mmdata.shards.tar import BLOCK_BYTES, END_MARK, member_header, padding
from mmdata.storage.ranges import Slices
from mmdata.wording import plural

#: Python's tarfile and GNU tar fill their files up to a multiple of this with zeros.
RECORD_BYTES = 10_240
_MAX_EXTENDED_BYTES = 2**20
_SHOWN_BYTES = 16  # of a field that differs


class Damage(StrEnum):
    """What can be wrong with the structure of a tar."""

    EMPTY_FILE = "empty-file"
    NOT_A_TAR = "not-a-tar"
    HEADER = "header"
    NOT_OURS = "not-ours"
    CUT = "cut"
    PADDING = "padding"
    END_MARK = "end-mark"
    TRAILING = "trailing"
    LOST = "lost"
    EXTENDED = "extended"
    NOT_A_FILE = "not-a-file"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong, at a byte offset of the tar."""

    damage: Damage
    offset: int
    name: str
    expected: str
    got: str


class Member(NamedTuple):
    """A regular file in a tar; offset and size (bytes) are of its data, not of its header."""

    name: str
    offset: int
    size: int


def walk(
    data: Slices, report: Callable[[Fault], None], *, ours: bool = False, start: int = 0
) -> Iterator[Member]:
    """Every regular member of a tar that is wholly there, in order.

    Args:
        data: the whole tar.
        report: is called with each fault as it is found.
        ours: the shard is one of ours, so every header must be `member_header`'s and the end mark
            the last thing in the file; otherwise any dialect and tarfile's zero fill will do.
        start: byte offset of the header to begin at.
    """
    if len(data) == 0:
        report(Fault(Damage.EMPTY_FILE, 0, "", "a tar of at least 1024 bytes", "0 bytes"))
        return iter(())
    return _Walk(data, report, ours=ours).members(start)


class _Walk:
    def __init__(self, data: Slices, report: Callable[[Fault], None], *, ours: bool) -> None:
        self.data = data
        self.size = len(data)
        self.report = report
        self.ours = ours
        self.lost_at = -1  # offset of the first header at which other readers stop
        self.lost_members = 0
        self.lost_keys: set[str] = set()
        self.override: dict[str, bytes] = {}  # from pax and GNU headers, for the next member

    def members(self, position: int = 0) -> Iterator[Member]:
        data, size, zeros = self.data, self.size, dialect.ZERO_BLOCK
        while position + BLOCK_BYTES <= size:
            block = data[position : position + BLOCK_BYTES]
            try:
                name = block[:100].split(b"\0", 1)[0].decode("ascii")
                length = int(block[124:135], 8)
                plain = block == member_header(name, length)
            except ValueError:
                plain = False
            if plain and not self.override and self.lost_at < 0:
                start = position + BLOCK_BYTES
                end = start + length
                after = end + -length % BLOCK_BYTES
                if after > size:
                    break
                if end != after and data[end:after] != zeros[: after - end]:
                    self.padding(name, end, after)
                yield Member(name, start, length)
                position = after
                continue
            if block == zeros:
                break
            found, position = self.other(block, position, plain=plain)
            if found is not None:
                yield found
            if position < 0:
                return self.finish()
        self.end(position)
        return self.finish()

    def other(self, block: bytes, position: int, *, plain: bool) -> tuple[Member | None, int]:
        """A header that is not ours: extended, foreign or damaged. Next position, -1 at the end."""
        header = dialect.read_header(block)
        start = position + BLOCK_BYTES
        if header.difference is None:
            if self.ours and not plain:
                expected = "a plain ustar file: mode 644, ids 0, time 0, no owner"
                got = f"another dialect, type {header.kind.decode('latin-1')!r}"
                self.fault(Damage.NOT_OURS, position, _text(header.name), expected, got)
        else:
            leads_on = self.leads_on(start, header)
            following = start if leads_on else self.resync(start)
            known = header.summed or block[257:].startswith(b"ustar")
            if position == 0 and following < 0 and not known:
                return None, self.not_a_tar(block)
            self.damaged(position, header, header.difference)
            if not header.summed:
                self.lost_at = position if self.lost_at < 0 else self.lost_at
                if not leads_on:
                    self.count_lost(_text(header.name))
                    return None, following
        return self.content(header, start)

    def content(self, header: dialect.TarHeader, start: int) -> tuple[Member | None, int]:
        """What a header announces, and where the next header is (-1: the file ends before)."""
        size = 0 if header.kind in dialect.DATALESS else header.size
        override = self.override
        extended = header.kind in dialect.EXTENDED
        if not extended:
            self.override = {}
            size = _pax_size(override.get("size"), size)
        end = start + size
        after = end + -size % BLOCK_BYTES
        name = _text(override.get("path", header.name))
        if size < 0 or after > self.size:
            self.cut(start - BLOCK_BYTES, name, size)
            return None, -1
        if self.data[end:after] != padding(size):
            self.padding(name, end, after)
        if extended:
            self.extend(header, start, size)
        elif header.kind in dialect.REGULAR and not name.endswith("/"):
            self.count_lost(name)
            return Member(name, start, size), after
        else:
            kind = dialect.KIND_NAMES.get(header.kind, f"type {header.kind!r}")
            self.fault(Damage.NOT_A_FILE, start - BLOCK_BYTES, name, "regular files only", kind)
        return None, after

    def extend(self, header: dialect.TarHeader, start: int, size: int) -> None:
        """Take up what a pax or GNU header says of the member behind it."""
        body = self.data[start : start + min(size, _MAX_EXTENDED_BYTES)]
        if header.kind == dialect.LONG_NAME:
            self.override = {**self.override, "path": body.rstrip(b"\0")}
        elif header.kind in dialect.PAX:
            records = dialect.parse_pax(body)
            if records is None:
                expected = "pax records, each 'length key=value'"
                got = f"{size} bytes that do not add up to such records"
                self.fault(Damage.EXTENDED, start, _text(header.name), expected, got)
            elif header.kind == b"x":
                self.override = {**self.override, **records}

    def leads_on(self, start: int, header: dialect.TarHeader) -> bool:
        """Whether a damaged header's size still leads to a header or to the end mark."""
        if header.size < 0:
            return False
        size = 0 if header.kind in dialect.DATALESS else header.size
        after = start + size + -size % BLOCK_BYTES
        following = self.data[after : after + BLOCK_BYTES] if after < self.size else b""
        return following == dialect.ZERO_BLOCK or dialect.is_header(following)

    def resync(self, position: int) -> int:
        """Offset of the next whole header at or behind `position`; -1 if there is none."""
        found = dialect.find_headers(self.data, position, self.size)
        return next((start for start in found if start % BLOCK_BYTES == 0), -1)

    def count_lost(self, name: str) -> None:
        if self.lost_at >= 0:
            self.lost_members += 1
            folder, slash, base = name.rpartition("/")
            self.lost_keys.add(folder + slash + base.partition(".")[0])

    def finish(self) -> None:
        """What other readers lose, once it is known."""
        if self.lost_at >= 0 and self.lost_members:
            got = (
                f"{plural(len(self.lost_keys), 'sample')} ({self.lost_members} members) from byte "
                f"{self.lost_at} on are not seen by readers that stop at the damage"
            )
            self.fault(Damage.LOST, self.lost_at, "", "every sample is reached", got)

    def end(self, position: int) -> None:
        """The end of the archive: two zero blocks, and what may stand behind them."""
        rest = self.size - position
        head = self.data[position : position + len(END_MARK)]
        if head[:BLOCK_BYTES].strip(b"\0"):
            self.cut_header(position)
        elif head.strip(b"\0"):
            self.no_end(position, "one zero block, then other bytes")
            self.trailing(position + BLOCK_BYTES)
        elif rest < len(END_MARK):
            self.no_end(position, f"{rest} bytes left in the file")
        elif rest > len(END_MARK) and (self.ours or not self.is_fill(position)):
            self.trailing(position + len(END_MARK))

    def is_fill(self, position: int) -> bool:
        """Whether all that follows is zero, and no more of it than tarfile writes."""
        short = self.size - position - len(END_MARK) < RECORD_BYTES
        return short and self.size % RECORD_BYTES == 0 and is_zero(self.data, position)

    def cut_header(self, position: int) -> None:
        """The walk stopped at something that is not zero: a member or header without its end."""
        block = self.data[position : position + BLOCK_BYTES]
        if len(block) == BLOCK_BYTES:
            header = dialect.read_header(block)
            self.cut(position, _text(header.name), header.size)
        elif position == 0:
            self.not_a_tar(block)
        else:
            got = f"the file ends after {len(block)} of them"
            self.fault(Damage.CUT, position, "", "a header of 512 bytes", got)

    def cut(self, position: int, name: str, size: int) -> None:
        there = self.size - position - BLOCK_BYTES
        got = f"the file ends after {there} of them"
        if size < 0:
            got = "no number in the size field"
        self.fault(Damage.CUT, position, name, f"{size} bytes of data and their padding", got)

    def no_end(self, position: int, got: str) -> None:
        self.fault(Damage.END_MARK, position, "", "two zero blocks (1024 bytes) at the end", got)

    def trailing(self, position: int) -> None:
        """Bytes behind the end mark; whole headers among them are samples nobody reads."""
        zero = "zero " if is_zero(self.data, position) else ""
        got = f"{self.size - position} {zero}bytes behind it"
        self.fault(Damage.TRAILING, position, "", "the end mark ends the file", got)
        start = -1 if zero else self.resync(position)
        if start >= 0:
            self.lost_at = start if self.lost_at < 0 else self.lost_at
            for member in _Walk(self.data, self.absorb, ours=False).members(start):
                self.count_lost(member.name)

    def absorb(self, fault: Fault) -> None:
        """Faults behind the end mark add nothing to the one that says bytes are there."""

    def padding(self, name: str, start: int, end: int) -> None:
        got = self.data[start:end]
        expected = f"{end - start} zero bytes behind the data"
        bad = next(i for i, byte in enumerate(got) if byte)
        found = f"0x{got[bad]:02x} at byte {start + bad}"
        self.fault(Damage.PADDING, start, name, expected, found)

    def damaged(
        self, position: int, header: dialect.TarHeader, difference: dialect.Difference
    ) -> None:
        pairs = zip(difference.expected, difference.got, strict=True)
        first = next(place for place, (ours, theirs) in enumerate(pairs) if ours != theirs)
        start = first if len(difference.got) > _SHOWN_BYTES else 0
        piece = slice(start, start + _SHOWN_BYTES)
        at = position + difference.offset + start
        expected = f"{difference.field} {difference.expected[piece]!r} at byte {at}"
        got = repr(difference.got[piece])
        self.fault(Damage.HEADER, position, _text(header.name), expected, got)

    def not_a_tar(self, block: bytes) -> int:
        known = {b"\x1f\x8b": "gzip", b"(\xb5\x2f\xfd": "zstd", b"PK": "zip", b"BZh": "bzip2"}
        kind = next((name for magic, name in known.items() if block.startswith(magic)), "")
        got = f"{kind}-compressed data: unpack it first" if kind else f"{block[:16]!r}..."
        self.fault(Damage.NOT_A_TAR, 0, "", "a tar header in the first 512 bytes", got)
        return -1

    def fault(self, damage: Damage, offset: int, name: str, expected: str, got: str) -> None:
        self.report(Fault(damage, offset, name, expected, got))


def _text(name: bytes) -> str:
    """A member name for people and comparisons; what is not UTF-8 keeps its bytes."""
    return name.decode("utf-8", "surrogateescape")


def _pax_size(record: bytes | None, size: int) -> int:
    return int(record) if record is not None and record.isdigit() and len(record) < 20 else size


def is_zero(data: Slices, position: int) -> bool:
    """Whether nothing but zeros follows, looked at in pieces of 1 MiB."""
    while piece := data[position : position + 2**20]:
        if piece.count(0) != len(piece):
            return False
        position += len(piece)
    return True
