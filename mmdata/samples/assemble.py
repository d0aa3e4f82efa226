"""From a source document to the bytes of its sample: images read, checked, aligned, encoded.

Pure but for reading the images: the same record and image files give the same bytes. Every image
and document that does not make it comes back as a drop with its reason. An image's file is let go
as soon as it is base64, and the member stays in parts until it is written: a document of the
greatest size (256 MiB of images) needs 1.4 times that in memory, not four times.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pybase64
from numpy.typing import NDArray

from mmdata.alignment import Similarity, align
from mmdata.images import ImagePolicy, ImageRejected, prepare_image
from mmdata.samples.encode import Picture as Picture
from mmdata.samples.encode import encode_member, samples_row
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.embedded import decode_embedded
from mmdata.sources.names import StoredImage, shown
from mmdata.sources.split import Grouping, SplitRule
from mmdata.wording import plural
from schemas.reasons import DocumentDrop, DocumentNote, ImageDrop, ImageNote

_EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
}


class MissingImageError(Exception):
    """An image is missing or unusable, and the run was asked to stop at that."""


@dataclass(frozen=True, slots=True)
class AssemblyPolicy:
    """What a document must be like to become a sample.

    Attributes:
        images: what is asked of each image.
        on_missing: what an image that is missing or unusable does to its document.
        keep_text_only: keep documents that are left without images.
        drop_duplicate_images: keep only the first of images with equal bytes.
        drop_url_duplicates: drop documents that say of themselves that their URL may repeat.
        min_images: documents that are left with fewer are dropped.
        max_images: keep that many of a document, those with the greatest similarity; None: all.
        min_similarity: drop images below it; None keeps all.
        max_document_bytes: of a document's encoded images together.
        grouping: what keeps documents together; the samples tables then tell it by a hash.
        split: documents of other splits are left to other runs; None: there is one only.
    """

    images: ImagePolicy
    on_missing: Literal["drop-image", "drop-document", "error"] = "drop-image"
    keep_text_only: bool = False
    drop_duplicate_images: bool = False
    drop_url_duplicates: bool = False
    min_images: int = 0
    max_images: int | None = None
    min_similarity: float | None = None
    max_document_bytes: int = 256 * 2**20
    grouping: Grouping | None = None
    split: SplitRule | None = None


@dataclass(slots=True)
class Outcome:
    """What became of one record; images are named by their index in the record.

    Attributes:
        parts: the sample's JSON, in pieces; empty when the document was dropped.
        row: of the samples table, less what only the tar knows.
        drop: (reason, detail) when the document was dropped.
        dropped_images: index -> (reason, detail).
        notes: (index or None, note, detail) on what was kept.
        placed: whether it is known which split it belongs to (see `AssemblyPolicy.split`).
        elsewhere: it belongs to another split; then there is nothing else.
    """

    parts: list[bytes] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    drop: tuple[DocumentDrop, str] | None = None
    dropped_images: dict[int, tuple[ImageDrop, str]] = field(default_factory=dict)
    notes: list[tuple[int | None, str, str]] = field(default_factory=list)
    placed: bool = False
    elsewhere: bool = False


@dataclass(slots=True)
class Draft:
    """A document whose images were checked and that is not aligned yet.

    Attributes:
        document: as the source has it.
        policy: what is kept of it.
        pictures: its images that passed.
        outcome: what is known so far; with a `drop` there is nothing left to do.
        pixels: of each picture, as a scorer wants them; empty without one.
    """

    document: SourceDocument
    policy: AssemblyPolicy
    pictures: list[Picture]
    outcome: Outcome
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scores:
    """Similarities that were computed, in place of the source's.

    Attributes:
        matrix: (pictures of the draft, sentences).
        source: where they come from.
    """

    matrix: Similarity
    source: str


#: What an image's name stands for; raises ImageRejected.
ReadImage = Callable[[str], StoredImage]
#: An encoded image as a scorer wants it; raises ImageRejected.
ToPixels = Callable[[bytes], NDArray[np.uint8]]


def assemble(document: SourceDocument, read_image: ReadImage, policy: AssemblyPolicy) -> Outcome:
    """Turn a document into a sample.

    Args:
        document: with references to images.
        read_image: what an image's name stands for; raises ImageRejected.
        policy: what is kept.

    Raises:
        MissingImageError: `on_missing` is `error` and an image did not pass.
    """
    return finish(check(document, read_image, policy))


def check(
    document: SourceDocument,
    read_image: ReadImage,
    policy: AssemblyPolicy,
    to_pixels: ToPixels | None = None,
) -> Draft:
    """Read and check a document's images, the first half of `assemble`.

    Args:
        document: with references to images.
        read_image: what an image's name stands for; raises ImageRejected.
        policy: what is kept.
        to_pixels: makes of an encoded image what a scorer wants; None where nothing is scored.

    Returns:
        A draft to be handed to `finish`, also where the document is dropped or of another split.

    Raises:
        MissingImageError: `on_missing` is `error` and an image did not pass.
    """
    outcome = Outcome(notes=[(None, note, detail) for note, detail in document.notes], placed=True)
    draft = Draft(document, policy, [], outcome)
    if policy.split is not None and not policy.split.holds(document):
        outcome.elsewhere, outcome.notes = True, []
        return draft
    _note_group(draft)
    try:
        _check_url(document, policy)
        if not document.images and not policy.keep_text_only:
            raise RecordDropped(DocumentDrop.NO_IMAGES_LISTED, _why_none(document))
        _pictures(draft, read_image, to_pixels)
    except RecordDropped as dropped:
        draft.pictures, draft.pixels = [], []
        drop(draft, dropped.reason, dropped.detail)
    return draft


def finish(draft: Draft, scores: Scores | None = None) -> Outcome:
    """Align a checked document and encode it, the second half of `assemble`.

    Args:
        draft: of `check`.
        scores: computed similarities; None for the document's own.

    Raises:
        ValueError: there are neither.
    """
    document, outcome = draft.document, draft.outcome
    if outcome.drop or outcome.elsewhere:
        return outcome
    matrix = scores.matrix if scores else _own_matrix(draft)
    places, matched = _aligned(draft, matrix)
    if not places and not draft.policy.keep_text_only:
        drop(draft, DocumentDrop.NO_IMAGES_LEFT, _why_none_left(outcome))
        return outcome
    if len(places) < (least := draft.policy.min_images):
        detail = f"expected at least {least} images, {len(places)} are left"
        drop(draft, DocumentDrop.TOO_FEW_IMAGES, detail)
        return outcome
    outcome.notes = [note for note in outcome.notes if note[0] not in outcome.dropped_images]
    pictures = [draft.pictures[place] for place in places]
    source = scores.source if scores else document.similarity_source
    outcome.parts = encode_member(document, pictures, matched, matrix[places], source)
    outcome.row = samples_row(document, pictures, matched, matrix[places], outcome.parts)
    outcome.row |= group_row(draft)
    return outcome


def drop(draft: Draft, reason: DocumentDrop, detail: str) -> None:
    """Give a document up, and the images that it still has with it.

    Args:
        draft: whose outcome takes this.
        reason: counted in the tally.
        detail: for the rejects beside the shard.
    """
    outcome = draft.outcome
    outcome.drop = (reason, detail)
    for index in range(len(draft.document.images)):
        outcome.dropped_images.setdefault(index, (ImageDrop.DOCUMENT_DROPPED, ""))
    outcome.notes = []


def _note_group(draft: Draft) -> None:
    """Remark on a document without the field that was to keep documents together."""
    grouping = draft.policy.grouping
    if grouping is not None and grouping.asked and draft.document.group is None:
        detail = f"no {grouping.by}: the document is a group of its own (--split-by)"
        draft.outcome.notes.append((None, DocumentNote.NO_GROUP.value, detail))


def group_row(draft: Draft) -> dict[str, str]:
    """The column of the samples table that tells groups, where there is one."""
    grouping = draft.policy.grouping
    if grouping is None or not grouping.asked:
        return {}
    return {"group": grouping.digest(draft.document.group)}


def _own_matrix(draft: Draft) -> Similarity:
    """The source's similarities of the pictures."""
    if draft.document.similarity is None:
        raise ValueError("a document without similarities: it has to be scored")
    return draft.document.similarity[[picture.index for picture in draft.pictures]]


def _check_url(document: SourceDocument, policy: AssemblyPolicy) -> None:
    """MMC4's mark: 1 where a document's URL may stand in the corpus more than once."""
    mark = document.extras.get("could_have_url_duplicate", b"")
    if policy.drop_url_duplicates and bytes(mark) in (b"1", b"true"):
        raise RecordDropped(DocumentDrop.URL_DUPLICATE, "$.could_have_url_duplicate: is 1")


def _why_none(document: SourceDocument) -> str:
    others = [name for name in ("video", "videos", "audio", "audios") if name in document.extras]
    instead = f", but {' and '.join(others)}" if others else ""
    return f"$.image_info: expected an image, got none{instead}"


def _why_none_left(outcome: Outcome) -> str:
    reasons = sorted({str(reason) for reason, _ in outcome.dropped_images.values()})
    return (
        f"dropped {plural(len(outcome.dropped_images), 'image')}, all of them: {', '.join(reasons)}"
    )


def _pictures(draft: Draft, read_image: ReadImage, to_pixels: ToPixels | None) -> None:
    """Read and check every image of a document."""
    outcome, policy = draft.outcome, draft.policy
    seen: set[str] = set()
    total_bytes = 0
    for index, image in enumerate(draft.document.images):
        try:
            if image.problem:
                raise ImageRejected(ImageDrop.MISSING, image.problem)
            stored = _stored(image, read_image)
            picture, notes = _picture(index, image.name, stored.data, policy.images)
            pixels = [to_pixels(pybase64.b64decode(picture.base64))] if to_pixels else []
        except ImageRejected as rejected:
            _refuse(outcome, index, image.name, rejected, policy)
            continue
        if policy.drop_duplicate_images and picture.sha256 in seen:
            detail = f"{shown(image.name)}: equal to an image before it"
            outcome.dropped_images[index] = (ImageDrop.DUPLICATE_IN_DOCUMENT, detail)
            continue
        seen.add(picture.sha256)
        total_bytes += picture.num_bytes
        if total_bytes > policy.max_document_bytes:
            raise RecordDropped(
                DocumentDrop.IMAGES_TOO_LARGE,
                f"the images come to over {policy.max_document_bytes} bytes",
            )
        draft.pictures.append(picture)
        draft.pixels += pixels
        outcome.notes += [(index, str(note), shown(image.name)) for note in image.notes]
        if stored.note is not None:
            outcome.notes.append((index, str(stored.note), _found_as(image.name, stored.name)))
        outcome.notes += [(index, note, shown(image.name)) for note in notes]


def _stored(image: SourceImage, read_image: ReadImage) -> StoredImage:
    """An image's file: in the record, or where its name leads."""
    if image.embedded:
        return StoredImage(decode_embedded(image.embedded), image.name)
    return read_image(image.name)


def _found_as(name: str, found: str) -> str:
    return shown(name) if name == found else f"{shown(name)} is {shown(found)}"


def _picture(index: int, name: str, data: bytes, policy: ImagePolicy) -> tuple[Picture, list[str]]:
    """Check one image; with what is remarkable about it."""
    prepared = prepare_image(data, policy)
    # Whether it was re-encoded is in the samples table and the counts, for each image.
    notes = [str(note) for note in prepared.notes if note != ImageNote.REENCODED]
    extension = os.path.splitext(name)[1].lower()
    if not prepared.reencoded and extension not in _EXTENSIONS[prepared.format]:
        notes.append(str(ImageNote.WRONG_EXTENSION))
    return Picture.of(index, prepared), notes


def _refuse(
    outcome: Outcome, index: int, name: str, rejected: ImageRejected, policy: AssemblyPolicy
) -> None:
    """An image that did not pass, by the policy."""
    told = shown(name)
    detail = rejected.detail if told in rejected.detail else f"{told}: {rejected.detail}"
    if policy.on_missing == "error":
        raise MissingImageError(f"image {index} ({told}): {rejected.reason}: {detail}")
    outcome.dropped_images[index] = (rejected.reason, detail)
    if policy.on_missing == "drop-document":
        missing = rejected.reason == ImageDrop.MISSING
        reason = DocumentDrop.IMAGE_MISSING if missing else DocumentDrop.IMAGE_UNUSABLE
        raise RecordDropped(reason, detail)


def _aligned(draft: Draft, similarity: Similarity) -> tuple[list[int], list[int]]:
    """Places of the pictures in the order of their sentences, and those sentences.

    Where there are more than `max_images`, those with the greatest similarity to their sentences
    stay (of equals the first), and are aligned anew, since sentences have come free.
    """
    most = draft.policy.max_images
    places, matched = _matched(draft, similarity, list(range(len(draft.pictures))))
    if most is None or len(places) <= most:
        return places, matched
    scores = dict(zip(places, similarity[places, matched].tolist(), strict=True))
    ranked = sorted(places, key=lambda place: (-scores[place], place))
    for place in ranked[most:]:
        detail = f"{most} images have a greater similarity (--max-images)"
        draft.outcome.dropped_images[draft.pictures[place].index] = (ImageDrop.SURPLUS, detail)
    return _matched(draft, similarity, sorted(ranked[:most]))


def _matched(
    draft: Draft, similarity: Similarity, places: list[int]
) -> tuple[list[int], list[int]]:
    """Places (in input order) aligned, and put in the order of their sentences."""
    given = draft.document.matched
    if given is not None:
        matched = {place: given[draft.pictures[place].index] for place in places}
        order = sorted(places, key=lambda place: (matched[place], place))
        return order, [matched[place] for place in order]
    threshold = draft.policy.min_similarity
    aligned = align(similarity[places], threshold)
    for k in aligned.below:
        detail = f"best free sentence is below --min-similarity {threshold}"
        index = draft.pictures[places[k]].index
        draft.outcome.dropped_images[index] = (ImageDrop.LOW_SIMILARITY, detail)
    return [places[k] for k in aligned.rows], aligned.matched
