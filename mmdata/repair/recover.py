"""What a damaged tar holds where its headers do not lead: members and documents.

A header that is cut, gone, moved off its block or that claims too many bytes makes a walk pass over
what is behind it. Here every byte is accounted for: members that are whole; in the gaps between
them, members behind a whole header at any offset; in what is left, documents, whose JSON says where
they begin and end; and of the rest each range, as lost. Time is a parse of the documents in doubt;
memory is that of one document.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mmdata.repair.found import belongs, key_and_extension
from mmdata.shards import dialect
from mmdata.shards.structure import Fault, Member, walk
from mmdata.shards.tar import BLOCK_BYTES
from mmdata.storage.files import Buffer
from schemas.manifest import Layout

_OPENING = re.compile(rb'\{[ \t\r\n]*"')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
#: Bytes that are decoded to look for a document's end, grown while the document goes on.
_FIRST_WINDOW_BYTES = 2**18
_WINDOW_GROWTH = 16
#: An error this close to a window's end may be the window's, not the document's.
_WINDOW_MARGIN_BYTES = 64
_DOCUMENT_NAME = re.compile(rb"[\w./-]{1,95}\.json", re.ASCII)
_MEMBER_NAME = re.compile(rb"[\w./-]{1,100}", re.ASCII)
#: Lenient: control characters in strings are mended later; numbers are not made, only passed.
_DECODER = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class Recovery:
    """What a tar holds.

    Attributes:
        unvouched: offsets of documents whose header is gone or says another size, so that nothing
            but their own end says that their bytes belong together.
        members: that are there, in the order of the tar; of those without a name, `name` is made up
            from the document's `id` or its place.
        nameless: offsets (of the data) of members whose name was made up.
        notes: offset of a member's data -> how it was found, where no header leads to it.
        lost: (begin, end, name or "") of each range of bytes that is no member.
        gaps_of_zeros: (begin, end) of zero blocks in front of members that are there.
    """

    members: list[Member] = field(default_factory=list)
    nameless: set[int] = field(default_factory=set)
    unvouched: set[int] = field(default_factory=set)
    notes: dict[int, str] = field(default_factory=dict)
    lost: list[tuple[int, int, str]] = field(default_factory=list)
    gaps_of_zeros: list[tuple[int, int]] = field(default_factory=list)


def recover(data: Buffer, walked: Iterable[Member], layout: Layout) -> Recovery:
    """Account for every byte of a damaged tar.

    Args:
        data: the whole tar.
        walked: the members that a walk of its headers came by.
        layout: of its samples.
    """
    return _Recovering(data, list(walked), layout).run()


def looks_whole(data: Buffer, member: Member) -> bool:
    """Whether a document's member begins and ends as JSON objects do; two bytes are looked at."""
    start, end = member.offset, member.offset + member.size
    first, last = data[start : start + 1], data[end - 1 : end]
    return first != b"" and first in b"{\xef" + _SPACE and last in b"}" + _SPACE


class _Spans:
    """Ranges of bytes that are accounted for, apart from each other."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        self._spans.insert(bisect_right(self._spans, (begin, end)), (begin, end))

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """What lies between them, in a file of `size` bytes."""
        found, position = [], 0
        for begin, end in [*self._spans, (size, size)]:
            if begin > position:
                found.append((position, begin))
            position = max(position, end)
        return found


class _Recovering:
    def __init__(self, data: Buffer, walked: list[Member], layout: Layout) -> None:
        self.data = data
        self.layout = layout
        self.spans = _Spans()
        self.result = Recovery()
        self.doubtful: list[Member] = []
        self.named = {member.offset: member for member in walked}
        self.walked = walked

    def run(self) -> Recovery:
        for member in self.walked:
            self.judge(member)
        for begin, end in self.gaps():
            for member in self.members_behind_headers(begin, end):
                self.judge(member, note=True)
        if self.layout == "interleaved":
            for begin, end in self.gaps():
                for start, stop, value in documents_in(self.data, begin, end):
                    self.add_document(begin, start, stop, value)
        self.keep_doubtful()
        self.result.members.sort(key=lambda member: member.offset)
        for begin, end in self.gaps():
            self.leave(begin, end)
        return self.result

    def gaps(self) -> list[tuple[int, int]]:
        return self.spans.gaps(len(self.data))

    def judge(self, member: Member, *, note: bool = False) -> None:
        """Take a member that is whole; one that may hold others' bytes is in doubt."""
        if self.is_whole(member):
            self.take(member)
            header = member.offset - BLOCK_BYTES
            behind_zeros = self.data[header - BLOCK_BYTES : header] == dialect.ZERO_BLOCK
            if note and not behind_zeros:
                self.result.notes[member.offset] = (
                    f"its header at byte {header} is whole, but no other header leads there"
                )
        else:
            self.doubtful.append(member)

    def is_whole(self, member: Member) -> bool:
        start, end = member.offset, member.offset + member.size
        _, extension = key_and_extension(member.name, self.layout)
        if extension == "json" and self.layout == "interleaved":
            return is_document(self.data[start:end])
        header = self.data[start - BLOCK_BYTES : start]
        if not dialect.read_header(header).summed:
            return False  # any bytes pass for a header whose size leads to another one
        if self.layout == "interleaved" and _OPENING.search(self.data, start, end):
            return False  # it may have swallowed documents
        return next(dialect.find_headers(self.data, start, end), -1) < 0

    def take(self, member: Member) -> None:
        end = member.offset + member.size
        self.spans.add(member.offset - BLOCK_BYTES, self.behind_padding(end, member.size))
        self.result.members.append(member)

    def behind_padding(self, end: int, size: int) -> int:
        """Where a member's padding ends: all of it where a block follows, else what is zero."""
        after = end + -size % BLOCK_BYTES
        block = self.data[after : after + BLOCK_BYTES]
        follows = block == dialect.ZERO_BLOCK or dialect.is_header(block)
        if follows and not _OPENING.search(self.data, end, after):
            return after
        padding = self.data[end:after]
        return end + len(padding) - len(padding.lstrip(b"\0"))

    def members_behind_headers(self, begin: int, end: int) -> Iterator[Member]:
        """Members behind whole headers of a gap that the walk did not come by, at any offset."""
        reached = set(self.named)
        for header in list(dialect.find_headers(self.data, begin, end)):
            if header + BLOCK_BYTES in reached:
                continue
            for member in walk(self.data, _ignore, start=header):
                if member.offset in reached or member.offset > end:
                    break
                reached.add(member.offset)
                self.named[member.offset] = member
                yield member

    def add_document(self, gap: int, start: int, end: int, value: dict[str, Any]) -> None:
        """Take a document that was found by its own beginning and end."""
        header = max(gap, start - BLOCK_BYTES)
        block = self.data[header:start]
        whole = dialect.is_header(block)
        known = self.named.get(start)
        size = known.size if known else dialect.read_header(block).size if whole else end - start
        if end - start < size <= len(self.data) - start:
            rest = self.data[end : start + size]
            end += len(rest) if not rest.strip(_SPACE) else 0
        name = known.name if known else _document_name(block)
        if not name.lower().endswith(".json"):
            name = _made_up_name(value, start)
            self.result.nameless.add(start)
        if not whole:
            why = f"its header at byte {header} is damaged ({len(block)} bytes are no header)"
        elif size != end - start:
            why = f"its header at byte {header} says {size} bytes, it has {end - start}"
        else:
            why = f"its header at byte {header} is out of place"
        if not whole or size != end - start:
            self.result.unvouched.add(start)
        self.result.notes[start] = f"{why}; found by its own end"
        self.result.members.append(Member(name, start, end - start))
        self.spans.add(header, self.behind_padding(end, end - start))

    def keep_doubtful(self) -> None:
        """Members in which nothing else was found stay what their headers say."""
        for member in self.doubtful:
            end = member.offset + member.size
            free = any(
                begin <= member.offset - BLOCK_BYTES and end <= stop for begin, stop in self.gaps()
            )
            inside = next(dialect.find_headers(self.data, member.offset, end), -1) >= 0
            if (
                free
                and not inside
                and _may_be_header(self.data[member.offset - BLOCK_BYTES : member.offset])
            ):
                self.take(member)

    def leave(self, begin: int, end: int) -> None:
        """Say of a gap what it is: zeros, headers of headers, or bytes that are lost."""
        piece = self.data[begin:end]
        if not piece.strip(b"\0"):
            if end < len(self.data):
                self.result.gaps_of_zeros.append((begin, end))
            return
        starts = [begin, *(at for at in dialect.find_headers(self.data, begin, end) if at > begin)]
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            piece = self.data[start:stop]
            kept = piece.strip(b"\0")
            if not kept or self.is_told(start, piece):
                continue
            first = start + len(piece) - len(piece.lstrip(b"\0"))
            self.result.lost.append((first, first + len(kept), self.name_at(start)))

    def is_told(self, start: int, piece: bytes) -> bool:
        """Whether a piece is a header alone whose member is looked at itself, or a link's, …"""
        block = piece[:BLOCK_BYTES]
        if not dialect.is_header(block):
            return False
        header = dialect.read_header(block)
        end = BLOCK_BYTES + (0 if header.kind in dialect.DATALESS else header.size)
        return header.kind not in dialect.REGULAR and not piece[end:].strip(b"\0")

    def name_at(self, header: int) -> str:
        if known := self.named.get(header + BLOCK_BYTES):
            return known.name
        block = self.data[header : header + BLOCK_BYTES]
        if dialect.is_header(block):
            return dialect.read_header(block).name.decode("utf-8", "surrogateescape")
        name = block[:100].split(b"\0", 1)[0]
        text = name.decode("ascii") if _MEMBER_NAME.fullmatch(name) else ""
        return text if belongs(key_and_extension(text, self.layout)[1], self.layout) else ""


def is_document(raw: bytes) -> bool:
    """Whether bytes are one JSON object that has sentences, and nothing else."""
    try:
        return "text_list" in _FIELDS.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        start = len(_BYTE_ORDER_MARK) if raw.startswith(_BYTE_ORDER_MARK) else 0
        start += len(raw) - start - len(raw[start:].lstrip(_SPACE))
        found = _object_at(raw, start, len(raw))
        return found is not None and "text_list" in found[1] and not raw[found[0] :].strip(_SPACE)


def documents_in(data: Buffer, begin: int, end: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(begin, end, fields) of the documents in a range of bytes, whatever stands between them.

    The fields are as the lenient decoder has them: numbers are strings, text is Latin-1.
    """
    position = begin
    while opening := _OPENING.search(data, position, end):
        start = opening.start()
        found = _object_at(data, start, end)
        if found is None:
            position = start + 1
            continue
        position, value = found
        if "text_list" in value:
            marked = data[max(begin, start - len(_BYTE_ORDER_MARK)) : start] == _BYTE_ORDER_MARK
            yield start - len(_BYTE_ORDER_MARK) * marked, position, value


def _object_at(data: Buffer, start: int, limit: int) -> tuple[int, dict[str, Any]] | None:
    """(end, value) of the JSON object that begins at a byte; None where none does or it is cut."""
    window = _FIRST_WINDOW_BYTES
    while True:
        stop = min(limit, start + window)
        text = str(data[start:stop], "latin-1")
        try:
            value, size = _DECODER.raw_decode(text)
        except json.JSONDecodeError as error:
            near_end = error.pos >= len(text) - _WINDOW_MARGIN_BYTES
            if stop == limit or not (near_end or error.msg.startswith("Unterminated")):
                return None
        except RecursionError:
            return None
        else:
            return (start + size, value) if isinstance(value, dict) else None
        window *= _WINDOW_GROWTH


def _may_be_header(block: bytes) -> bool:
    """Whether a block was a header once, rather than any bytes that a walk was led to."""
    header = dialect.read_header(block)
    named = _MEMBER_NAME.fullmatch(header.name) is not None
    return header.summed or named or block.startswith(b"ustar", 257)


def _ignore(fault: Fault) -> None:
    """A walk that is begun amid damage tells nothing new."""


def _document_name(block: bytes) -> str:
    """The name of a document in what may have been its header; empty where there is none."""
    name = block[:100].split(b"\0", 1)[0]
    return name.decode("ascii") if _DOCUMENT_NAME.fullmatch(name) else ""


def _made_up_name(value: dict[str, Any], offset: int) -> str:
    """A document's `id`, or its place: what to call it where no header does."""
    known = value.get("id")
    if isinstance(known, str) and _DOCUMENT_NAME.fullmatch(f"{known}.json".encode()):
        return f"{known}.json"
    return f"recovered-{offset:012d}.json"
