"""A `{key}.json` member put right: what can be mended without inventing data is, the rest drops.

An image whose bytes, row of the matrix or sentence cannot be had leaves its document, and the rest
is aligned anew; a document drops where nothing says what belongs together (a matrix of another
number of rows) or nothing is left. An assignment that is optimal over the images that stay is kept
as it is, so that a document without faults comes out byte for byte.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mmdata.images import ImageRejected, prepare_image
from mmdata.repair.base64_text import mend_base64
from mmdata.repair.damaged_document import (
    DamagedDocument,
    DamagedImage,
    is_index,
    matrix_of,
    read_damaged,
    value_of,
)
from mmdata.repair.found import Row
from mmdata.samples.assemble import AssemblyPolicy, Draft, Outcome, Picture, drop, finish
from mmdata.sources.base import RecordDropped, SourceDocument
from mmdata.validation.document_rules import not_optimal
from schemas.document import Window
from schemas.reasons import DocumentDrop, ImageDrop, ImageNote, RepairNote

_SIMILARITY_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class _Known:
    """The images of a document by the samples table: their sha256, and whether it has no others.

    A document that is not what the table was made from may hold images of another one.
    """

    sha256: set[str]
    all_of_them: bool


def mend_document(
    raw: bytes, policy: AssemblyPolicy, row: Row | None = None, *, vouched: bool = True
) -> Outcome:
    """What becomes of a member of a damaged shard.

    Args:
        raw: its bytes.
        policy: of its images.
        row: of the samples table, where there is one.
        vouched: something says that the bytes belong together. Where nothing does, an image that
            cannot be had may mean that parts of two documents have come together, and the whole is
            given up.

    Returns:
        The sample as it should be, with a note for each thing that was set right, or why there is
        none.
    """
    try:
        read = read_damaged(raw)
    except RecordDropped as dropped:
        return Outcome(drop=(dropped.reason, dropped.detail))
    outcome = Outcome(notes=read.notes)
    sources = [image.source for image in read.images]
    document = SourceDocument(
        read.text_list,
        sources,
        matrix_of(read),
        read.similarity_source,
        read.alignment,
        read.extras,
        roles=read.roles,
    )
    if not sources:
        policy = replace(policy, keep_text_only=True)  # it was meant to be without
    changed = row is not None and hashlib.sha256(raw).hexdigest() != row["sha256"]
    known = _Known(set() if row is None else set(row["image_sha256"]), all_of_them=changed)
    draft = Draft(document, policy, list(_pictures(read, outcome, policy, known)), outcome)
    if outcome.dropped_images and not vouched and row is None:
        drop(draft, DocumentDrop.LOST, _why_unvouched(outcome))
        return outcome
    draft.document = replace(document, matched=_matched(read, draft))
    finished = _as_it_was(finish(draft), raw, read)
    if changed and row and finished.row and finished.row["text_sha256"] != row["text_sha256"]:
        detail = "its sentences are not those that the samples table was made from"
        finished.notes.append((None, RepairNote.TEXT_DIFFERS.value, detail))
    return finished


def _why_unvouched(outcome: Outcome) -> str:
    index, (reason, detail) = next(iter(outcome.dropped_images.items()))
    return (
        f"no header says how long it is, and image {index} is {reason} ({detail}): parts of two "
        "documents may have come together"
    )


def _as_it_was(outcome: Outcome, raw: bytes, read: DamagedDocument) -> Outcome:
    """The member's own bytes, where what was made of it says the same: nothing had to be mended."""
    made = b"".join(outcome.parts)
    if made == raw:
        return outcome
    untouched = read.ours and not outcome.notes and not outcome.dropped_images
    if made and untouched and msgspec.json.decode(made) == msgspec.json.decode(raw):
        outcome.parts = [raw]
        outcome.row |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    return outcome


def _pictures(
    read: DamagedDocument, outcome: Outcome, policy: AssemblyPolicy, known: _Known
) -> Iterator[Picture]:
    """The images that stay; what becomes of the others goes to the outcome.

    Args:
        read: the document.
        outcome: that is added to.
        policy: of its images.
        known: the images that it had by the samples table.
    """
    for index, image in enumerate(read.images):
        name = image.source.name
        if image.problem:
            reason, detail = image.problem
            outcome.dropped_images[index] = (reason, f"{name}: {detail}" if name else detail)
            continue
        try:
            yield _picture(index, image, read, outcome, policy, known)
        except ImageRejected as rejected:
            detail = f"{name}: {rejected.detail}" if name else rejected.detail
            outcome.dropped_images[index] = (rejected.reason, detail)


def _picture(
    index: int,
    image: DamagedImage,
    read: DamagedDocument,
    outcome: Outcome,
    policy: AssemblyPolicy,
    known: _Known,
) -> Picture:
    data, mends = mend_base64(image.payload or "")
    digest = hashlib.sha256(data).hexdigest()
    recorded = image.facts["sha256"]
    differs = read.ours and recorded != digest and not mends
    if digest not in known.sha256 and (differs or known.all_of_them):
        detail = f"its bytes are not those that it was written with (sha256 {recorded})"
        raise ImageRejected(ImageDrop.HASH_MISMATCH, detail)
    prepared = prepare_image(data, policy.images)
    if mends:
        outcome.notes.append((index, RepairNote.BASE64_MENDED.value, "; ".join(mends)))
    for note in prepared.notes:
        if note != ImageNote.REENCODED:
            outcome.notes.append((index, note.value, image.source.name))
    if not prepared.reencoded:
        facts = {"width": prepared.width, "height": prepared.height, "format": prepared.format}
        _note_facts(index, image, facts | {"sha256": digest}, outcome)
    return Picture.of(index, prepared, window=value_of(image.source.fields.get("window"), Window))


def _note_facts(index: int, image: DamagedImage, facts: dict[str, Any], outcome: Outcome) -> None:
    """Say what an image's fields said wrongly of it."""
    wrong = [
        f"{name}: was {image.facts[name]}, is {value}"
        for name, value in facts.items()
        if image.facts[name] is not None and image.facts[name] != value
    ]
    if wrong:
        outcome.notes.append((index, RepairNote.FACTS_CORRECTED.value, "; ".join(wrong)))


def _matched(read: DamagedDocument, draft: Draft) -> list[int] | None:
    """The sentence of each image where the document's own assignment stands; None: anew."""
    kept = [picture.index for picture in draft.pictures]
    stated = [image.index for image in read.images]
    indices = [index if is_index(index, read.text_list) else None for index in stated]
    matched = [index or 0 for index in indices]
    if not kept:
        return matched
    if read.alignment == "assigned":
        found = [indices[index] for index in kept]
        sound = [index for index in found if index is not None]
        similarity = matrix_of(read)[kept]
        problem = ("an index for each image", "none for some")
        wrong = problem if len(sound) != len(kept) else not_optimal(similarity, sound)
        if wrong is not None:
            if not draft.outcome.dropped_images:  # with these it goes without saying
                detail = f"expected {wrong[0]}, got {wrong[1]}"
                draft.outcome.notes.append((None, RepairNote.REALIGNED.value, detail))
            return None
    _note_order(read, draft, [matched[index] for index in kept])
    return matched


def _note_order(read: DamagedDocument, draft: Draft, matched: list[int]) -> None:
    """Say where images change places, or `matched_sim` was not the matrix's value."""
    notes = draft.outcome.notes
    if matched != sorted(matched):
        detail = f"the images stood at sentences {', '.join(map(str, matched[:20]))}"
        notes.append((None, RepairNote.REORDERED.value, detail))
    for picture, sentence in zip(draft.pictures, matched, strict=True):
        image = read.images[picture.index]
        value = (image.scores or [])[sentence]
        if image.sim is not None and not abs(image.sim - value) <= _SIMILARITY_TOLERANCE:
            detail = f"matched_sim: was {image.sim}, is {value}"
            notes.append((picture.index, RepairNote.SIMILARITY_CORRECTED.value, detail))
