"""Everything that a tar holds or held: samples, wherever readers would stop, and what is lost.

The walk of `mmdata.shards.structure` goes on behind damage; here what it passes over is looked at
too. Where a samples table stands beside the tar, its rows say where each sample lies, whatever
became of the headers. Without one, the document behind a header that is gone is found by its own
end, for JSON says where it ends. Nothing is left out: what cannot be had is named as lost.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmdata.shards import dialect
from mmdata.shards.naming import KEY_DIGITS, sample_key
from mmdata.shards.reader import split_name
from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.shards.tar import BLOCK_BYTES
from mmdata.storage.files import Buffer
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TEXT_EXTENSION
from schemas.manifest import Layout
from schemas.reasons import DocumentDrop, RepairNote

#: Rows of a samples table, by column.
Row = dict[str, Any]
#: A string of JSON, or a bracket outside of strings.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
_KEY = re.compile(rf"[0-9a-z_-]{{0,64}}[0-9]{{{KEY_DIGITS}}}")


@dataclass(slots=True)
class Found:
    """A sample of a tar, or what is left of one.

    Attributes:
        offset: byte offset of its first member's data, or of what stands in its place.
        name: of its first member, as the tar has it; empty where that is not known.
        key: of the sample; empty where it is not known.
        members: (offset, size) of its members' data, by extension.
        notes: (note, detail) of what was set right in the tar.
        lost: (reason, detail) where nothing of it can be used.
        row: of the samples table, where that knows the sample.
    """

    offset: int
    name: str
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    lost: tuple[DocumentDrop, str] | None = None
    row: Row | None = None


@dataclass(slots=True)
class _Walked:
    """What a walk came by.

    Attributes:
        members: regular files that are wholly there.
        faults: what is wrong, by offset of header or place.
        behind_end: where members behind the end mark begin, which nobody reads; -1: none.
    """

    members: list[Member] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    behind_end: int = -1


def plain(name: str) -> str:
    """A member's name as UTF-8, with escapes for what is none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_our_key(key: str) -> bool:
    """Whether a key is one that a converter gives: a prefix and 12 digits."""
    return _KEY.fullmatch(key) is not None


def layout_of(data: Buffer) -> Layout | None:
    """The layout of a tar by the names of its members; None where it has none that say so."""
    layout: Layout | None = None
    for member in _walk(data).members:
        key, extension = split_name(member.name)
        if key and (extension in IMAGE_EXTENSIONS or extension == TEXT_EXTENSION):
            return "pairs"
        if key and extension == "json":
            layout = "interleaved"
    return layout


def salvage(data: Buffer, layout: Layout, rows: list[Row] | None = None) -> list[Found]:
    """Everything that a tar holds or held, in its order.

    Args:
        data: the whole tar.
        layout: of its samples.
        rows: of the samples table beside it; None without one. A table that knows no sample of
            this tar is not believed.
    """
    walked = _walk(data)
    found = list(_whole_members(walked, layout))
    found += _passed_over(data, walked, layout)
    found.sort(key=lambda item: item.offset)
    for item in found:
        item.name, item.key = plain(item.name), plain(item.key)
    if layout == "pairs":
        found = _with_lost_members(found)
    elif rows:
        found = _with_rows(data, found, rows)
    _note_no_end(walked, found)
    return found


def _note_no_end(walked: _Walked, found: list[Found]) -> None:
    """Say it with the last sample: a tar without its end may have been cut behind it."""
    missing = next((fault for fault in walked.faults if fault.damage == Damage.END_MARK), None)
    last = next((item for item in reversed(found) if item.members), None)
    if missing is not None and last is not None:
        detail = f"at byte {missing.offset}: expected {missing.expected}, got {missing.got}"
        last.notes.append((RepairNote.NO_END_MARK.value, detail))


def _walk(data: Buffer) -> _Walked:
    """Walk the tar, and what stands behind its end mark."""
    walked = _Walked()
    walked.members = list(walk(data, walked.faults.append))
    for fault in walked.faults:  # grows: behind an end mark there may be another one
        if fault.damage == Damage.TRAILING:
            start = _next_header(data, fault.offset)
            if start >= 0:
                walked.behind_end = start if walked.behind_end < 0 else walked.behind_end
                walked.members += walk(data, walked.faults.append, start=start)
    walked.members.sort(key=lambda member: member.offset)
    return walked


def _next_header(data: Buffer, position: int) -> int:
    """Offset of the next whole header at or behind `position`; -1 if there is none."""
    magic = data.find(b"ustar", position + 257)
    while magic >= 0:
        start = magic - 257
        if start % BLOCK_BYTES == 0 and dialect.is_header(data[start : start + BLOCK_BYTES]):
            return start
        magic = data.find(b"ustar", magic + 1)
    return -1


def _whole_members(walked: _Walked, layout: Layout) -> Iterator[Found]:
    """Samples made of the members that are there."""
    notes: dict[int, tuple[str, str]] = {}
    for fault in walked.faults:
        if fault.damage == Damage.HEADER:
            detail = f"header at byte {fault.offset}: expected {fault.expected}, got {fault.got}"
            notes[fault.offset + BLOCK_BYTES] = (RepairNote.HEADER_MENDED.value, detail)
    open_samples: dict[str, Found] = {}
    last = ""
    for member in walked.members:
        key, extension = _split(member.name, layout)
        place = (member.offset, member.size)
        if not key or not _belongs(extension, layout):
            why = f"{member.name!r} ({member.size} bytes) is no part of a sample"
            lost = (DocumentDrop.NOT_A_SAMPLE, why)
            yield Found(member.offset, member.name, key, lost=lost)
            continue
        sample = open_samples.get(key)
        if sample is None or extension in sample.members:
            twice = sample is not None
            sample = Found(member.offset, member.name, key)
            open_samples[key] = sample
            if detail := _name_problem(member.name, key, extension, twice=twice):
                sample.notes.append((RepairNote.RENAMED.value, detail))
            yield sample  # its further members are added while the list is made
        elif last != key:
            detail = f"{member.name} stood apart, at byte {member.offset}"
            sample.notes.append((RepairNote.REGROUPED.value, detail))
        sample.members[extension] = place
        if member.offset in notes:
            sample.notes.append(notes[member.offset])
        if 0 <= walked.behind_end < member.offset:
            detail = f"{member.name} stood behind the end mark, where nobody reads"
            sample.notes.append((RepairNote.BEHIND_END.value, detail))
        last = key


def _split(name: str, layout: Layout) -> tuple[str, str]:
    """(key, extension) of a name; a document's also where readers would split it otherwise."""
    if layout == "interleaved" and name.lower().endswith(".json"):
        return name[: -len(".json")], "json"
    return split_name(name)


def _name_problem(name: str, key: str, extension: str, *, twice: bool) -> str:
    """Why a sample cannot keep the name that it has; empty where it can."""
    if twice:
        return f"{name!r} is there twice"
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        return f"{name!r} leads out of a folder"
    if split_name(name) != (key, extension):
        return f"readers take no document from a member named {name!r}"
    return ""


def _belongs(extension: str, layout: Layout) -> bool:
    if extension == "json":
        return True
    return layout == "pairs" and (extension in IMAGE_EXTENSIONS or extension == TEXT_EXTENSION)


def _passed_over(data: Buffer, walked: _Walked, layout: Layout) -> Iterator[Found]:
    """What the walk did not yield: members cut short, without a header, or not files."""
    there = {member.offset for member in walked.members}
    headers = sorted(member.offset - BLOCK_BYTES for member in walked.members)
    damaged = {fault.offset for fault in walked.faults if fault.damage == Damage.HEADER}
    for fault in walked.faults:
        start = fault.offset + BLOCK_BYTES
        if fault.damage == Damage.NOT_A_FILE and fault.offset not in damaged:
            lost = (DocumentDrop.NOT_A_SAMPLE, f"{fault.name!r} is a {fault.got}")
            yield Found(start, fault.name, "", lost=lost)
        elif fault.damage == Damage.CUT:
            detail = f"expected {fault.expected}, got: {fault.got}"
            key, _ = split_name(fault.name)
            yield Found(start, fault.name, key, lost=(DocumentDrop.LOST, detail))
        elif fault.damage == Damage.HEADER and start not in there:
            if dialect.read_header(data[fault.offset : start]).kind in dialect.EXTENDED:
                continue  # it said something about the next member, which is looked at itself
            after = bisect_right(headers, fault.offset)
            end = headers[after] if after < len(headers) else len(data)
            yield from _without_header(data, start, end, fault, layout)


def _with_lost_members(found: list[Found]) -> list[Found]:
    """Members that are lost, told with the sample that they belong to where that is there."""
    samples = {item.key: item for item in found if item.members}
    rest = []
    for item in found:
        sample = samples.get(item.key)
        if item.members or sample is None or item.lost is None:
            rest.append(item)
        else:
            detail = f"{item.name}: {item.lost[1]}"
            sample.notes.append((RepairNote.MEMBER_LOST.value, detail))
    return rest


def _without_header(
    data: Buffer, start: int, end: int, fault: Fault, layout: Layout
) -> Iterator[Found]:
    """The documents between a header that is gone and the next one that is whole."""
    name, count = fault.name, 0
    while layout == "interleaved" and start < end:
        size = json_end(data[start:end])
        if size < 0:
            break
        key, extension = split_name(name)
        detail = f"its header at byte {start - BLOCK_BYTES} is damaged; found by its own end"
        sample = Found(start, name, key if extension == "json" else "")
        sample.members["json"] = (start, size)
        sample.notes.append((RepairNote.HEADER_MENDED.value, detail))
        yield sample
        count += 1
        start += size + -size % BLOCK_BYTES + BLOCK_BYTES
        name = ""
    rest = data[start - BLOCK_BYTES : end]
    if count and not rest.strip(b"\0"):
        return
    detail = (
        f"the header at byte {start - BLOCK_BYTES} is damaged and {end - start} bytes behind it "
        "cannot be told apart"
    )
    key = "" if count else split_name(name)[0]
    yield Found(start, name, key, lost=(DocumentDrop.LOST, detail))


def json_end(data: bytes) -> int:
    """Bytes of the JSON object that the data begins with; -1 where it does not, or has no end."""
    if data[:1] != b"{":
        return -1
    depth = 0
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
    return -1


def _with_rows(data: Buffer, found: list[Found], rows: list[Row]) -> list[Found]:
    """The same with what the samples table knows: keys, and samples whose headers are gone."""
    held = [_holds(data, row) for row in rows]
    if not any(held):
        return found  # it is another shard's
    by_offset = {item.offset: item for item in found}
    items: list[Found] = []
    claimed: set[int] = set()
    for row, whole in zip(rows, held, strict=True):
        item = by_offset.get(row["offset"])
        if item is not None:
            claimed.add(item.offset)
        items.append(_by_row(len(data), row, item, whole=whole))
    taken = sorted((row["offset"], row["offset"] + row["size"]) for row in rows)
    cut = min((item.offset for item in items if item.lost), default=len(data) + 1)
    items += [
        item
        for item in found
        if item.offset not in claimed
        and not _inside(item.offset, taken)
        and not (item.lost and item.offset >= cut)
    ]
    items.sort(key=lambda item: item.offset)
    return items


def _holds(data: Buffer, row: Row) -> bool:
    """Whether a row's sample is in the tar, byte for byte."""
    member = data[row["offset"] : row["offset"] + row["size"]]
    return bool(hashlib.sha256(member).hexdigest() == row["sha256"])


def _inside(offset: int, taken: list[tuple[int, int]]) -> bool:
    """Whether an offset lies in a sample that a row tells of."""
    at = bisect_right(taken, offset, key=lambda span: span[0]) - 1
    return at >= 0 and offset < taken[at][1]


def _by_row(num_bytes: int, row: Row, item: Found | None, *, whole: bool) -> Found:
    """A sample as the samples table has it."""
    name = f"{row['key']}.json"
    sample = Found(row["offset"], name, row["key"], row=row)
    sample.notes = list(item.notes) if item else []
    if item is not None and item.members and item.name != name:
        detail = f"the samples table has it as {name}, the tar as {item.name!r}"
        sample.notes.append((RepairNote.RENAMED.value, detail))
    if whole or (item is not None and item.members):
        size = row["size"] if whole or item is None else item.members["json"][1]
        sample.members["json"] = (row["offset"], size)
        if item is None or not item.members:
            detail = "its header is damaged; the samples table says where it is"
            sample.notes.append((RepairNote.HEADER_MENDED.value, detail))
    elif row["offset"] + row["size"] > num_bytes:
        got = max(0, num_bytes - row["offset"])
        detail = f"expected {row['size']} bytes, the file ends after {got} of them"
        sample.lost = (DocumentDrop.LOST, detail)
    else:
        # Its place is known and its header gone: the bytes are looked at, whatever they are.
        sample.members["json"] = (row["offset"], row["size"])
    return sample


def assign_keys(found: list[Found]) -> list[str] | None:
    """The key of each, where all are a converter's and ascend; unknown ones get the next number.

    Returns:
        None where the samples have to be numbered anew.
    """
    keys: list[str] = []
    prefix = next((item.key[:-KEY_DIGITS] for item in found if is_our_key(item.key)), None)
    if prefix is None:
        return None
    firsts = [
        int(item.key[-KEY_DIGITS:]) - place
        for place, item in enumerate(found)
        if is_our_key(item.key)
    ]
    before = firsts[0] - 1
    for item in found:
        if item.key and not (is_our_key(item.key) and item.key[:-KEY_DIGITS] == prefix):
            return None
        number = int(item.key[-KEY_DIGITS:]) if item.key else before + 1
        if number <= before or number < 0:
            return None
        keys.append(sample_key(number, prefix))
        before = number
    return keys
