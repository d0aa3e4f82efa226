"""Everything that a tar holds or held: samples, wherever readers would stop, and what is lost.

A sound tar is what a walk of its headers says. In a damaged one every byte is accounted for
(`recover`): members and documents that no header leads to are found by themselves, and what cannot
be had is named as lost. Where a samples table stands beside the tar, each of its rows is saved or
named, wherever its bytes lie now (`by_table`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmdata.repair.by_table import with_rows
from mmdata.repair.found import Found, Row, belongs, key_and_extension
from mmdata.repair.recover import looks_whole, recover
from mmdata.shards.naming import KEY_DIGITS, sample_key
from mmdata.shards.reader import split_name
from mmdata.shards.structure import Damage, Fault, Member, is_zero, walk
from mmdata.shards.tar import BLOCK_BYTES, END_MARK
from mmdata.storage.files import Buffer
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TEXT_EXTENSION
from schemas.manifest import Layout
from schemas.reasons import DocumentDrop, RepairNote

_KEY = re.compile(rf"[0-9a-z_-]{{0,64}}[0-9]{{{KEY_DIGITS}}}")
#: The field that makes a JSON a document.
_TEXTS = b'"text_list"'
#: Faults behind which every member is still where the headers say.
_HARMLESS = frozenset((Damage.NOT_OURS, Damage.END_MARK, Damage.NOT_A_FILE, Damage.EMPTY_FILE))


@dataclass(slots=True)
class _Tar:
    """What a tar holds, before its members are put together to samples.

    Attributes:
        members: regular files that are wholly there.
        faults: what is wrong, by offset of header or place.
        notes: offset of a member's data -> what was wrong with the way to it.
        nameless: offsets of members whose name was made up.
        unvouched: offsets of documents whose length no header tells.
        lost: of ranges of bytes that are no member.
        behind_end: where members begin that stand behind an end mark or other zero blocks, where
            readers stop; -1: none.
    """

    members: list[Member] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)
    nameless: set[int] = field(default_factory=set)
    unvouched: set[int] = field(default_factory=set)
    lost: list[Found] = field(default_factory=list)
    behind_end: int = -1


def plain(name: str) -> str:
    """A member's name as UTF-8, with escapes for what is none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_our_key(key: str) -> bool:
    """Whether a key is one that a converter gives: a prefix and 12 digits."""
    return _KEY.fullmatch(key) is not None


def layout_of(data: Buffer) -> Layout | None:
    """The layout of a tar by the names of its members; None where it has none that say so.

    Where a damaged tar's headers lead to no document, those that they do not lead to say it.
    """
    tar = _walk(data)
    layout = _layout_by_names(tar.members)
    if layout == "pairs" or any(_TEXTS in data[m.offset : m.offset + m.size] for m in tar.members):
        return layout
    if _is_damaged(data, tar, "pairs"):
        layout = _layout_by_names(_recovered(data, tar, "pairs").members) or layout
    return layout


def _layout_by_names(members: list[Member]) -> Layout | None:
    layout: Layout | None = None
    for member in members:
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
    tar = _walk(data)
    if _is_damaged(data, tar, layout):
        tar = _recovered(data, tar, layout)
    found = [*_samples(tar, layout), *_not_files(tar), *tar.lost]
    found.sort(key=lambda item: item.offset)
    for item in found:
        item.name, item.key = plain(item.name), plain(item.key)
    if layout == "pairs":
        found = _with_lost_members(found)
    if rows:
        found = with_rows(data, found, rows, layout)
    _note_no_end(data, tar, found)
    return found


def _note_no_end(data: Buffer, tar: _Tar, found: list[Found]) -> None:
    """Say it with the last sample: a tar without its end may have been cut behind it."""
    missing = next((fault for fault in tar.faults if fault.damage == Damage.END_MARK), None)
    last = next((item for item in reversed(found) if item.members), None)
    if missing is None or last is None or data[-len(END_MARK) :] == END_MARK:
        return
    detail = f"at byte {missing.offset}: expected {missing.expected}, got {missing.got}"
    last.notes.append((RepairNote.NO_END_MARK.value, detail))


def _walk(data: Buffer) -> _Tar:
    """The tar as its headers have it."""
    tar = _Tar()
    tar.members = list(walk(data, tar.faults.append))
    for fault in tar.faults:
        if fault.damage == Damage.HEADER:
            tar.notes[fault.offset + BLOCK_BYTES] = (
                f"header at byte {fault.offset}: expected {fault.expected}, got {fault.got}"
            )
    return tar


def _is_damaged(data: Buffer, tar: _Tar, layout: Layout) -> bool:
    """Whether something may lie where the headers do not lead."""
    for fault in tar.faults:
        if fault.damage == Damage.TRAILING:
            if not is_zero(data, fault.offset):
                return True
        elif fault.damage not in _HARMLESS:
            return True
    return layout == "interleaved" and not all(
        looks_whole(data, member)
        for member in tar.members
        if key_and_extension(member.name, layout)[1] == "json"
    )


def _recovered(data: Buffer, walked: _Tar, layout: Layout) -> _Tar:
    """The tar with what its headers do not lead to."""
    recovery = recover(data, walked.members, layout)
    tar = _Tar(
        recovery.members,
        walked.faults,
        walked.notes | recovery.notes,
        recovery.nameless,
        recovery.unvouched,
    )
    tar.behind_end = min((end for _, end in recovery.gaps_of_zeros), default=-1)
    why = {f.offset: f"expected {f.expected}, got {f.got}" for f in walked.faults}
    for begin, end, name in recovery.lost:
        detail = f"bytes {begin} to {end} ({end - begin} bytes) cannot be told apart"
        detail += f": {why[begin]}" if begin in why else ""
        key, _ = key_and_extension(name, layout)
        offset = begin + BLOCK_BYTES if name else begin
        tar.lost.append(Found(offset, name, key, lost=(DocumentDrop.LOST, detail)))
    return tar


def _samples(tar: _Tar, layout: Layout) -> Iterator[Found]:
    """Samples made of the members that are there."""
    open_samples: dict[str, Found] = {}
    last = ""
    for member in tar.members:
        key, extension = key_and_extension(member.name, layout)
        if not key or not belongs(extension, layout):
            why = f"{member.name!r} ({member.size} bytes) is no part of a sample"
            lost = (DocumentDrop.NOT_A_SAMPLE, why)
            yield Found(member.offset, member.name, key, lost=lost)
            continue
        sample = open_samples.get(key)
        if sample is None or extension in sample.members:
            twice = sample is not None
            known = member.offset not in tar.nameless or is_our_key(key)
            sample = Found(member.offset, member.name, key if known else "")
            sample.vouched = member.offset not in tar.unvouched
            open_samples[key] = sample
            if detail := _name_problem(member.name, key, extension, twice=twice):
                sample.notes.append((RepairNote.RENAMED.value, detail))
            yield sample  # its further members are added while the list is made
        elif last != key:
            detail = f"{member.name} stood apart, at byte {member.offset}"
            sample.notes.append((RepairNote.REGROUPED.value, detail))
        sample.members[extension] = (member.offset, member.size)
        if member.offset in tar.notes:
            sample.notes.append((RepairNote.HEADER_MENDED.value, tar.notes[member.offset]))
        if 0 <= tar.behind_end < member.offset:
            detail = f"{member.name} stood behind zero blocks, where nobody reads"
            sample.notes.append((RepairNote.BEHIND_END.value, detail))
        last = key


def _name_problem(name: str, key: str, extension: str, *, twice: bool) -> str:
    """Why a sample cannot keep the name that it has; empty where it can."""
    if twice:
        return f"{name!r} is there twice"
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        return f"{name!r} leads out of a folder"
    if split_name(name) != (key, extension):
        return f"readers take no document from a member named {name!r}"
    return ""


def _not_files(tar: _Tar) -> Iterator[Found]:
    """Links, folders and the like, which are no part of a sample."""
    damaged = {fault.offset for fault in tar.faults if fault.damage == Damage.HEADER}
    for fault in tar.faults:
        if fault.damage == Damage.NOT_A_FILE and fault.offset not in damaged:
            lost = (DocumentDrop.NOT_A_SAMPLE, f"{fault.name!r} is a {fault.got}")
            yield Found(fault.offset + BLOCK_BYTES, fault.name, "", lost=lost)


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
