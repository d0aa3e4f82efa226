"""What a worker does with one shard that is repaired: look at all that is in it, save, commit."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mmdata.errors import BadInputError
from mmdata.images import ImagePolicy
from mmdata.repair.documents import mend_document
from mmdata.repair.found import Found, Row
from mmdata.repair.pairs import mend_pair
from mmdata.repair.salvage import assign_keys, layout_of, salvage
from mmdata.samples.assemble import AssemblyPolicy, Outcome
from mmdata.shards.groups import GroupLabel, read_label
from mmdata.shards.naming import KEY_DIGITS, sample_key
from mmdata.shards.reader import read_samples_rows, samples_path
from mmdata.shards.structure import Damage, Fault, walk
from mmdata.shards.tar import BLOCK_BYTES
from mmdata.shards.writer import ShardWriter
from mmdata.sources.records import Segment
from mmdata.storage.files import Buffer, exists, open_buffer, open_file, size_of
from mmdata.versions import codec_versions
from pipelines.conversion.counts import count_outcome
from pipelines.conversion.plan import SegmentScan, ShardScan
from pipelines.conversion.shard_job import ShardHead, write_shard
from pipelines.conversion.task import UnitError, UnitTask, check_versions, is_done
from pipelines.engine.events import Tick
from schemas.manifest import GROUP_COLUMNS, Kind, Layout, SourceSpan
from schemas.reasons import DocumentDrop, RepairNote

_COLUMNS = ["key", "offset", "size", "sha256", "text_sha256", "image_sha256"]
_CHUNK_BYTES = 4 * 2**20
#: A guess, for the estimate of the time alone.
_BYTES_AN_IMAGE = 60_000


@dataclass(frozen=True, slots=True)
class RepairJob:
    """How shards are repaired.

    Attributes:
        kind: that the shards are of.
        layout: of their samples.
        keep_keys: samples keep their keys; else they are numbered anew.
        key_prefix: of the samples.
        max_pixels: of an image.
        keep_text_only: keep documents that lose all their images.
    """

    kind: Kind
    layout: Layout
    keep_keys: bool
    key_prefix: str
    max_pixels: int
    keep_text_only: bool

    def policy(self) -> AssemblyPolicy:
        """What an image must be like."""
        images = ImagePolicy(max_pixels=self.max_pixels, max_bytes=2**31)
        return AssemblyPolicy(images=images, keep_text_only=self.keep_text_only)


def scan_shard(segment: Segment) -> SegmentScan:
    """Count what a shard holds, for the plan: walk the tar, and read it to its end.

    Raises:
        BadInputError: it is no tar, is empty, or cannot be read.
    """
    path = segment.path
    try:
        crc, size = _crc_of(path)
        rows = read_rows(path)
        with open_buffer(path) as data:
            layout = layout_of(data)
            found = salvage(data, layout or "interleaved", rows)
            if not any(item.members for item in found):
                _refuse_no_tar(path, data)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    keys = assign_keys(found)
    return SegmentScan(
        records=len(found),
        crc32=zlib.crc32(repr(rows).encode(), crc),
        record_bytes=size,
        probed_records=len(found),
        probed_images=size // _BYTES_AN_IMAGE,
        probed_found=size // _BYTES_AN_IMAGE,
        looked_in="inside",
        shard=ShardScan(
            layout=layout or "",
            first_key=keys[0] if keys else "",
            last_key=keys[-1] if keys else "",
        ),
    )


def _crc_of(path: str) -> tuple[int, int]:
    """Checksum and bytes of a file, by plain reads: a map of a bad disk ends the process."""
    crc = size = 0
    with open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
    return crc, size


def _refuse_no_tar(path: str, data: Buffer) -> None:
    def refuse(fault: Fault) -> None:
        if fault.damage in (Damage.NOT_A_TAR, Damage.EMPTY_FILE):
            raise BadInputError(
                f"{path}: expected {fault.expected}, got {fault.got}; nothing of it can be saved",
                short=f"expected {fault.expected}, got {fault.got}",
            )

    next(iter(walk(data, refuse)), None)


def read_rows(path: str) -> list[Row] | None:
    """The samples table beside a shard; None where there is none that can be read."""
    beside = samples_path(path)
    try:
        if not exists(beside):
            return None
        groups = GROUP_COLUMNS if read_label(beside) else ()
        rows = read_samples_rows(beside, [*_COLUMNS, *groups])
    except (BadInputError, UnicodeDecodeError):
        return None  # damaged too: the tar's own headers have to do
    sound = all(_is_sound(row) for row in rows)
    return rows if sound else None


def groups_of(path: str, rows: list[Row] | None) -> GroupLabel | None:
    """What the samples table beside a shard says of groups; None where it tells none."""
    told = rows and all(name in rows[0] for name in GROUP_COLUMNS)
    return read_label(samples_path(path)) if told else None


def _is_sound(row: Row) -> bool:
    """Whether a row has a value in each column, and its place can be one in a tar."""
    return None not in row.values() and row["offset"] >= BLOCK_BYTES and row["size"] >= 0


def repair_unit(task: UnitTask[RepairJob]) -> Iterator[Tick]:
    """Write a shard's repaired twin.

    Raises:
        UnitError: the shard is not what it was when the run was planned.
    """
    check_versions(task, codec_versions())
    unit, shard = task.unit, task.unit.first_shard
    if is_done(task, shard):
        return
    path = unit.segment.path
    rows = read_rows(path)
    _crc_of(path)
    with open_buffer(path) as data:
        found = salvage(data, task.job.layout, rows)
        if len(found) != unit.num_records or size_of(path) != unit.segment.end:
            raise UnitError(f"{path}: has changed since the run was planned; run it again")
        keys = _keys(task, found)
        head = ShardHead(
            kind=task.job.kind,
            first_ordinal=int(keys[0][-KEY_DIGITS:]),
            source=[SourceSpan(file=unit.file, first_record=0, num_records=len(found))],
            layout=task.job.layout,
            key_prefix=task.job.key_prefix,
            groups=groups_of(path, rows),
            energon=task.energon,
        )
        yield from write_shard(task, shard, head, _RepairedShard(task, data, found, keys).fill)


def _keys(task: UnitTask[RepairJob], found: list[Found]) -> list[str]:
    """The keys of the samples: their own, where these are kept and can be."""
    kept = assign_keys(found) if task.job.keep_keys else None
    first, prefix = task.unit.first_ordinal, task.job.key_prefix
    return kept or [sample_key(first + place, prefix) for place in range(len(found))]


class _RepairedShard:
    """One shard in repair."""

    def __init__(
        self, task: UnitTask[RepairJob], data: Buffer, found: list[Found], keys: list[str]
    ) -> None:
        self._task = task
        self._data = data
        self._found = found
        self._policy = task.job.policy()
        self._seen: dict[str, set[str]] = {}
        self._keys = keys

    def fill(self, writer: ShardWriter) -> Iterator[None]:
        """Write every sample, in order."""
        for place, item in enumerate(self._found):
            self._add(writer, place, item)
            yield None

    def _add(self, writer: ShardWriter, place: int, item: Found) -> None:
        key = self._keys[place]
        unit = self._task.unit
        span = SourceSpan(file=unit.file, member=item.name, first_record=place, num_records=1)
        ordinal = int(key[-KEY_DIGITS:])
        outcome = Outcome(drop=item.lost) if item.lost else self._repeated(item)
        if outcome is None and self._task.job.layout == "pairs":
            pair = mend_pair(self._members(item), key, self._policy, item.row)
            outcome = pair.outcome
            if pair.members:
                row = outcome.row | {"group": item.group}
                writer.add_members(ordinal, span, pair.members, row)
        elif outcome is None:
            raw = self._members(item)["json"]
            outcome = mend_document(raw, self._policy, item.row, vouched=item.vouched)
            if outcome.parts:
                writer.add(ordinal, span, outcome.parts, outcome.row | {"group": item.group})
        if outcome.drop is None:
            outcome.notes += [(None, note, detail) for note, detail in item.notes]
        else:  # the bytes that its lost members had are named with it
            reason, detail = outcome.drop
            lost = [told for note, told in item.notes if note == RepairNote.MEMBER_LOST]
            outcome.drop = (reason, "; ".join([detail, *lost]))
        count_outcome(writer, outcome, span, key)

    def _members(self, item: Found) -> dict[str, bytes]:
        return {
            kind: self._data[offset : offset + size]
            for kind, (offset, size) in item.members.items()
        }

    def _repeated(self, item: Found) -> Outcome | None:
        """A sample that the tar holds twice under one key; None for the first of it."""
        digest = hashlib.sha256()
        for data in self._members(item).values():
            digest.update(data)
        seen = self._seen.setdefault(item.key, set())
        if not item.key or digest.hexdigest() not in seen:
            seen.add(digest.hexdigest())
            return None
        detail = f"the same as another sample of key {item.key}"
        return Outcome(drop=(DocumentDrop.DUPLICATE_DOCUMENT, detail))


def list_segments(path: str) -> list[Segment]:
    """A shard is one segment."""
    return [Segment(path, end=size_of(path))]
