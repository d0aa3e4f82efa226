"""What became of records, counted into a shard's tally and its rejects."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from mmdata.samples.assemble import Outcome
from mmdata.shards.writer import ShardWriter
from mmdata.sources.records import Overlong
from pipelines.conversion.plan import ConversionUnit
from pipelines.engine.events import Tick
from schemas.manifest import Reject, RejectAction, SourceSpan, Tally
from schemas.reasons import DocumentDrop


def span_of(unit: ConversionUnit, begin: int, count: int) -> SourceSpan:
    """Records of a unit as a span of their file.

    Args:
        unit: that they are in.
        begin: place of the first in the unit.
        count: how many.
    """
    return SourceSpan(
        file=unit.file,
        member=unit.segment.member if unit.member is None else unit.member,
        first_record=unit.first_record + begin,
        num_records=count,
    )


def span_of_row(row: dict[str, Any]) -> SourceSpan:
    """The record that a row of the samples table was made of."""
    return SourceSpan(
        file=row["source_file"],
        member=row["source_member"],
        first_record=row["source_record"],
        num_records=1,
    )


def count_outcome(writer: ShardWriter, outcome: Outcome, span: SourceSpan, key: str) -> None:
    """Count what became of one record, and tell in the rejects what it has lost.

    Args:
        writer: of its shard.
        outcome: what became of it.
        span: the record in its source.
        key: of its sample.
    """
    _add(writer.tally, outcome)
    for reject in _reject_lines(outcome, span, key):
        writer.reject(reject)


def _add(tally: Tally, outcome: Outcome) -> None:
    tally.records += 1
    if outcome.drop:
        increment(tally.documents_dropped, outcome.drop[0].value)
    else:
        add_row(tally, outcome.row)
        tally.images_listed += len(outcome.row["matched"])
    tally.images_listed += len(outcome.dropped_images)
    for reason, _ in outcome.dropped_images.values():
        increment(tally.images_dropped, reason.value)
    for note, number in Counter(note for _, note, _ in outcome.notes).items():
        increment(tally.notes, note, number)


def add_row(tally: Tally, row: dict[str, Any], times: int = 1) -> None:
    """Count a document by its row of the samples table; with -1 it is counted off again."""
    tally.documents += times
    tally.images += times * len(row["matched"])
    tally.sentences += times * row["sentences"]
    tally.image_bytes += times * sum(row["image_bytes"])
    tally.images_reencoded += times * sum(row["reencoded"])


def increment(counts: dict[str, int], name: str, number: int = 1) -> None:
    """Count something by its name."""
    counts[name] = counts.get(name, 0) + number


def forget_note(tally: Tally, note: str) -> None:
    """Count a remark off again: remarks are on what is kept."""
    tally.notes[note] -= 1
    if not tally.notes[note]:
        del tally.notes[note]


def reject_of(
    span: SourceSpan, key: str, action: RejectAction, reason: str, detail: str = "", image: str = ""
) -> Reject:
    """A line of the rejects file.

    Args:
        span: the record in its source.
        key: of its sample.
        action: what was done with it, or with an image of it.
        reason: why.
        detail: in words.
        image: place of the image among those of the document; empty for the document itself.
    """
    return Reject(
        action=action,
        reason=reason,
        file=span.file,
        member=span.member,
        record=span.first_record,
        key=key,
        image=image,
        detail=detail,
    )


def _reject_lines(outcome: Outcome, span: SourceSpan, key: str) -> Iterator[Reject]:
    """The lines of the rejects file: of the document, then of each image that it loses."""

    reject = partial(reject_of, span, key)
    if outcome.drop:
        reason, detail = outcome.drop
        yield reject("dropped-document", reason.value, detail)
    for index, (image_reason, detail) in sorted(outcome.dropped_images.items()):
        yield reject("dropped-image", image_reason.value, detail, str(index))
    for noted, note, detail in outcome.notes:
        yield reject("kept", note, detail, "" if noted is None else str(noted))


def progress_of(tally: Tally) -> Tick:
    """A tally as progress."""
    dropped = sum(tally.documents_dropped.values())
    return Tick(tally.records + tally.other_splits, tally.images, tally.image_bytes, dropped)


def ticked(before: Tick, now: Tick) -> Tick:
    """The progress between two."""
    return Tick(
        now.records - before.records,
        now.images - before.images,
        now.image_bytes - before.image_bytes,
        now.dropped - before.dropped,
    )


def overlong_drop(record: Overlong, limit: int) -> Outcome:
    """The outcome of a record that is longer than the limit."""
    detail = f"expected at most {limit} bytes, got {record.num_bytes}"
    return Outcome(drop=(DocumentDrop.RECORD_TOO_LARGE, detail))
