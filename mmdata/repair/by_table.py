"""What a tar holds, by the samples table beside it: each row is saved or named.

A row says where its sample was written and what its bytes hash to. They may lie elsewhere now, or
be damaged under their key; then what the walk found of it stands. What no row tells of is kept too.
"""

import hashlib
from bisect import bisect_right

from mmdata.repair.found import Found, Row
from mmdata.shards.tar import BLOCK_BYTES
from mmdata.storage.files import Buffer
from schemas.manifest import Layout
from schemas.reasons import DocumentDrop, RepairNote


def with_rows(data: Buffer, found: list[Found], rows: list[Row], layout: Layout) -> list[Found]:
    """What was found, with what a samples table knows: keys, and samples that are lost.

    Args:
        data: the whole tar.
        found: in it.
        rows: of the table; one that knows no sample of this tar is not believed.
        layout: of the samples.
    """
    if layout == "pairs":
        return _pairs_with_rows(found, rows)
    held = [_holds(data, row) for row in rows]
    table = _Table(data, found, held, rows)
    return table.items() if table.is_believed() else found


def _holds(data: Buffer, row: Row) -> bool:
    """Whether a row's sample is in its place, byte for byte."""
    member = data[row["offset"] : row["offset"] + row["size"]]
    return bool(hashlib.sha256(member).hexdigest() == row["sha256"])


class _Table:
    """The rows of a table beside what was found in the tar."""

    def __init__(self, data: Buffer, found: list[Found], held: list[bool], rows: list[Row]) -> None:
        self.data = data
        self.found = found
        self.rows = rows
        self.held = held
        self.by_offset = {item.offset: item for item in found if item.members}
        places = {row["offset"] for row, whole in zip(rows, held, strict=True) if whole}
        self.moved: dict[str, list[Found]] = {}
        self.by_key: dict[str, list[Found]] = {}
        self.lost_by_key = {item.key: item for item in found if item.lost and item.key}
        if not all(held):
            for item in found:
                if item.members and item.offset not in places:
                    self.moved.setdefault(self._sha256(item), []).append(item)
                    self.by_key.setdefault(item.key, []).append(item)
        self.claimed: set[int] = set()

    def _sha256(self, item: Found) -> str:
        offset, size = item.members["json"]
        return hashlib.sha256(self.data[offset : offset + size]).hexdigest()

    def is_believed(self) -> bool:
        """Whether it is of this tar: by a sample that is whole, else by the keys of what is not."""
        if any(self.held) or any(row["sha256"] in self.moved for row in self.rows):
            return True
        keys = {row["key"] for row in self.rows}
        whole = any(item.members and not item.notes for item in self.found)
        return not whole and any(item.key in keys for item in self.found)

    def items(self) -> list[Found]:
        """The rows in their order, and between them what no row tells of."""
        matched = [self._match(row, whole=w) for row, w in zip(self.rows, self.held, strict=True)]
        for place, row in enumerate(self.rows):  # what lies elsewhere by its bytes goes first
            if matched[place] is None:
                matched[place] = self._take(self.by_key.get(row["key"], []))
        spans = sorted(
            (item.offset, item.offset + size)
            for item in self.found
            for _, size in item.members.values()
        )
        items = [
            self._of_row(row, item, spans, whole=whole)
            for row, item, whole in zip(self.rows, matched, self.held, strict=True)
        ]
        return self._with_others(items)

    def _match(self, row: Row, *, whole: bool) -> Found | None:
        """What was found of a row's sample byte for byte."""
        if not whole:
            return self._take(self.moved.get(row["sha256"], []))
        item = self.by_offset.get(row["offset"])
        return None if item is None else self._take([item])

    def _take(self, candidates: list[Found]) -> Found | None:
        for item in candidates:
            if item.offset not in self.claimed:
                self.claimed.add(item.offset)
                return item
        return None

    def _of_row(
        self, row: Row, item: Found | None, spans: list[tuple[int, int]], *, whole: bool
    ) -> Found:
        """A sample as the samples table has it."""
        name = f"{row['key']}.json"
        if item is not None:
            sample = Found(item.offset, name, row["key"], dict(item.members), list(item.notes))
            sample.row, sample.vouched = row, item.vouched
            sample.group = _group_of(row)
            if whole:
                sample.members["json"] = (row["offset"], row["size"])
            if item.name != name and item.key != row["key"] and item.key:
                detail = f"the samples table has it as {name}, the tar as {item.name!r}"
                sample.notes.append((RepairNote.RENAMED.value, detail))
            return sample
        sample = Found(row["offset"], name, row["key"], row=row, group=_group_of(row))
        end = row["offset"] + row["size"]
        lost = self.lost_by_key.get(row["key"])
        if whole:
            sample.members["json"] = (row["offset"], row["size"])
            detail = "its header is damaged; the samples table says where it is"
            sample.notes.append((RepairNote.HEADER_MENDED.value, detail))
        elif end > len(self.data):
            got = max(0, len(self.data) - row["offset"])
            detail = f"expected {row['size']} bytes, the file ends after {got} of them"
            sample.lost = (DocumentDrop.LOST, detail)
        elif _overlaps(row["offset"], end, spans) or self.data[row["offset"]] != ord("{"):
            detail = f"expected {row['size']} bytes at byte {row['offset']}, others are there"
            detail = lost.lost[1] if lost is not None and lost.lost else detail
            sample.lost = (DocumentDrop.LOST, detail)
        else:
            # Nothing else claims its place: the bytes are looked at, whatever they are.
            sample.members["json"] = (row["offset"], row["size"])
        return sample

    def _with_others(self, items: list[Found]) -> list[Found]:
        """What no row tells of, each behind the row in front of it in the tar."""
        told = {item.key for item in items}
        taken = sorted(
            (row["offset"] - BLOCK_BYTES, row["offset"] + row["size"])
            for row, item in zip(self.rows, items, strict=True)
            if item.offset == row["offset"]
        )
        after: dict[int, list[Found]] = {}
        places = sorted((item.offset, place) for place, item in enumerate(items))
        for item in self.found:
            if item.offset in self.claimed and item.members:
                continue
            lost = item.lost is not None and item.lost[0] == DocumentDrop.LOST
            if lost and (item.key in told or _overlaps(item.offset, item.offset + 1, taken)):
                continue  # the row says what became of it
            at = bisect_right(places, (item.offset, len(items))) - 1
            after.setdefault(places[at][1] if at >= 0 else -1, []).append(item)
        ordered = after.get(-1, [])
        for place, item in enumerate(items):
            ordered += [item, *after.get(place, [])]
        return ordered


def _group_of(row: Row) -> str:
    """The group that a row tells; empty in a table without groups."""
    group: str = row.get("group", "")
    return group


def _overlaps(begin: int, end: int, spans: list[tuple[int, int]]) -> bool:
    """Whether a range shares a byte with one of some that are sorted and apart."""
    at = bisect_right(spans, begin, key=lambda span: span[0]) - 1
    inside = at >= 0 and begin < spans[at][1]
    return inside or (at + 1 < len(spans) and spans[at + 1][0] < end)


def _pairs_with_rows(found: list[Found], rows: list[Row]) -> list[Found]:
    """Pairs, and behind them those of the table that nothing is left of."""
    keys = {item.key for item in found if item.key}
    groups = {row["key"]: _group_of(row) for row in rows}
    if not keys & groups.keys():
        return found  # it is another shard's
    for item in found:
        item.group = groups.get(item.key, "")
    missing = [row for row in rows if row["key"] not in keys]
    detail = "no member of it is there"
    lost = [
        Found(row["offset"], "", row["key"], lost=(DocumentDrop.LOST, detail)) for row in missing
    ]
    return sorted([*found, *lost], key=lambda item: item.offset)
