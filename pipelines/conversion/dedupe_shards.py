"""Finish draft shards: write those with duplicates anew without them, give the rest a new sidecar.

What is left of a document that is dropped here is what is left of one that never got in: a line of
the rejects for it and for each of its images, its counts, and none of its remarks.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from mmdata.errors import MMDataError
from mmdata.shards.groups import read_label
from mmdata.shards.naming import KEY_DIGITS, REJECTS, SAMPLES, SIDECAR, TAR, sample_key, shard_stem
from mmdata.shards.reader import ShardReader, read_samples_rows, samples_columns
from mmdata.shards.writer import LeaseLostError, ShardWriter, encode_record
from mmdata.storage.atomic import write_atomically
from mmdata.storage.files import read_bytes
from mmdata.storage.lease import holds
from pipelines.conversion.counts import add_row, forget_note, increment, reject_of, span_of_row
from pipelines.conversion.output import committed
from pipelines.conversion.shard_job import ShardHead, write_shard
from pipelines.engine.events import Tick
from schemas.manifest import Reject, Sidecar, Tally
from schemas.reasons import DocumentDrop, ImageDrop

_REJECT = msgspec.json.Decoder(Reject)
#: Columns that `ShardWriter.add` fills in by itself.
_PLACE = ("key", "offset", "source_file", "source_member", "source_record")


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A document, by its ordinal in the whole input, and the first one that it equals."""

    ordinal: int
    first: int


@dataclass(frozen=True, slots=True)
class FinishTask:
    """Some draft shards, and which of their documents go."""

    output: str
    lease_path: str
    run: str
    draft: str
    fingerprint: str
    key_prefix: str
    shards: tuple[int, ...]
    duplicates: tuple[tuple[Duplicate, ...], ...]


class DraftGoneError(MMDataError):
    """A draft is no longer what it was."""

    exit_code = 1


def finish_shards(task: FinishTask) -> Iterator[Tick]:
    """Finish the shards of a task; ticks as it goes, so that it is not taken for one that hangs."""
    for shard, duplicates in zip(task.shards, task.duplicates, strict=True):
        draft = committed(task.output, shard, task.draft)
        if draft is None:  # finished by an attempt at this task that crashed
            if committed(task.output, shard, task.fingerprint) is None:
                path = os.path.join(task.output, shard_stem(shard) + TAR)
                raise DraftGoneError(f"{path}: has changed meanwhile; run the same command again")
        elif duplicates:
            firsts = {one.ordinal: one.first for one in duplicates}
            yield from _write_without(task, shard, draft, firsts)
        else:
            _rename(task, shard, draft)
            yield Tick(0, 0, 0, 0)


def _rename(task: FinishTask, shard: int, draft: Sidecar) -> None:
    """A draft without duplicates is the shard already."""
    if not holds(task.lease_path, task.run):
        raise LeaseLostError(f"{task.output}: another run has taken over; nothing is lost")
    sidecar = msgspec.structs.replace(draft, fingerprint=task.fingerprint)
    path = os.path.join(task.output, shard_stem(shard) + SIDECAR)
    write_atomically(path, encode_record(sidecar))


def _write_without(
    task: FinishTask, shard: int, draft: Sidecar, firsts: dict[int, int]
) -> Iterator[Tick]:
    """Write a shard anew without some of its documents."""
    stem = os.path.join(task.output, shard_stem(shard))
    rows = read_samples_rows(stem + SAMPLES, samples_columns(stem + SAMPLES))
    gone = {row["key"]: row for row in rows if int(row["key"][-KEY_DIGITS:]) in firsts}
    kept = [row for row in rows if row["key"] not in gone]
    head = ShardHead(
        kind=draft.kind,
        first_ordinal=draft.first_ordinal,
        source=draft.source,
        layout=draft.layout,
        key_prefix=task.key_prefix,
        groups=read_label(stem + SAMPLES),
        tally=_tally(draft.tally, list(gone.values())),
    )

    def fill(writer: ShardWriter) -> Iterator[None]:
        yield from _copy(writer, stem + TAR, kept)
        rejects = [_REJECT.decode(line) for line in read_bytes(stem + REJECTS).splitlines()]
        for reject in _rejects(rejects, gone, firsts, task.key_prefix, writer.tally):
            writer.reject(reject)

    yield from write_shard(task, shard, head, fill)


def _copy(writer: ShardWriter, tar: str, rows: list[dict[str, Any]]) -> Iterator[None]:
    """Copy members as they are; memory holds one."""
    if not rows:
        return
    with ShardReader(tar) as reader:
        for row in rows:
            copy_sample(writer, reader, row)
            yield None


def copy_sample(writer: ShardWriter, reader: ShardReader, row: dict[str, Any]) -> None:
    """Copy a sample, its members as they are, and its row of the samples table.

    Args:
        writer: of the shard that it goes to.
        reader: of the shard that it is in.
        row: of the samples table there.
    """
    members = [(kind, [bytes(data)]) for kind, data in reader.read(row["key"]).members.items()]
    rest = {name: value for name, value in row.items() if name not in _PLACE}
    writer.add_members(int(row["key"][-KEY_DIGITS:]), span_of_row(row), members, rest)


def _tally(before: Tally, gone: list[dict[str, Any]]) -> Tally:
    """The counts without the documents that go; their remarks are counted off with their lines."""
    tally = msgspec.structs.replace(
        before,
        documents_dropped=dict(before.documents_dropped),
        images_dropped=dict(before.images_dropped),
        notes=dict(before.notes),
    )
    for row in gone:
        add_row(tally, row, times=-1)
        increment(tally.documents_dropped, DocumentDrop.DUPLICATE_DOCUMENT.value)
        if row["matched"]:
            increment(tally.images_dropped, ImageDrop.DOCUMENT_DROPPED.value, len(row["matched"]))
    return tally


def _rejects(
    before: list[Reject],
    gone: dict[str, dict[str, Any]],
    firsts: dict[int, int],
    key_prefix: str,
    tally: Tally,
) -> list[Reject]:
    """The rejects with the new ones among them, in the order of records."""
    kept: dict[str, list[Reject]] = {key: [] for key in gone}
    for reject in before:
        if reject.key in gone and reject.action == "kept":
            forget_note(tally, reject.reason)
        else:
            kept.setdefault(reject.key, []).append(reject)
    for key, row in gone.items():
        first = sample_key(firsts[int(key[-KEY_DIGITS:])], key_prefix)
        kept[key] = list(_of_dropped(row, kept[key], first))
    return [reject for key in sorted(kept) for reject in kept[key]]


def _of_dropped(row: dict[str, Any], images: list[Reject], first: str) -> Iterator[Reject]:
    """The lines of a document that is dropped: its own, then one an image, by place."""

    reject = partial(reject_of, span_of_row(row), row["key"])
    detail = f"equal to {first} in sentences and images"
    yield reject("dropped-document", DocumentDrop.DUPLICATE_DOCUMENT.value, detail=detail)
    before = {int(line.image): line for line in images}
    for place in range(len(before) + len(row["matched"])):
        dropped = ImageDrop.DOCUMENT_DROPPED.value
        yield before.get(place) or reject("dropped-image", dropped, image=str(place))
