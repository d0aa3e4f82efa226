"""From a source document to the bytes of its sample: images read, checked, aligned, encoded.

Pure but for reading the images: the same record and image files give the same bytes. Every image
and document that does not make it comes back as a drop with its reason. An image's file is let go
as soon as it is base64, and the member stays in parts until it is written: a document of the
greatest size (256 MiB of images) needs 1.4 times that in memory, not four times.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import pybase64

from mmdata.alignment import Similarity, align
from mmdata.images import ImagePolicy, ImageRejected, prepare_image
from mmdata.sources.base import RecordDropped, SourceDocument
from schemas.document import FORMAT_VERSION
from schemas.reasons import DocumentDrop, ImageDrop, ImageNote

_EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
}
#: What a sample's JSON says of itself; a source's fields of these names give way to ours.
_OWN_FIELDS = frozenset({"format_version", "similarity_source", "alignment"})
_OWN_IMAGE_FIELDS = frozenset({"image_base64", "width", "height", "format", "sha256"})


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


@dataclass(slots=True)
class Outcome:
    """What became of one record; images are named by their index in the record.

    Attributes:
        parts: the sample's JSON, in pieces; empty when the document was dropped.
        row: of the samples table, less what only the tar knows.
        drop: (reason, detail) when the document was dropped.
        dropped_images: index -> (reason, detail).
        notes: (index or None, note, detail) on what was kept.
    """

    parts: list[bytes] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    drop: tuple[DocumentDrop, str] | None = None
    dropped_images: dict[int, tuple[ImageDrop, str]] = field(default_factory=dict)
    notes: list[tuple[int | None, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image that passed."""

    index: int
    base64: bytes
    num_bytes: int
    width: int
    height: int
    format: str
    sha256: str
    reencoded: bool


def assemble(
    document: SourceDocument, read_image: Callable[[str], bytes], policy: AssemblyPolicy
) -> Outcome:
    """Turn a document into a sample.

    Args:
        document: with references to images.
        read_image: the bytes of a named image; raises ImageRejected.
        policy: what is kept.

    Raises:
        MissingImageError: `on_missing` is `error` and an image did not pass.
    """
    outcome = Outcome(notes=[(None, note, detail) for note, detail in document.notes])
    try:
        _check_url(document, policy)
        if not document.images and not policy.keep_text_only:
            raise RecordDropped(
                DocumentDrop.NO_IMAGES_LISTED, "$.image_info: expected an image, got none"
            )
        pictures = _pictures(document, read_image, policy, outcome)
        pictures, matched = _aligned(document, pictures, policy, outcome)
        if not pictures and not policy.keep_text_only:
            raise RecordDropped(DocumentDrop.NO_IMAGES_LEFT, _why_none_left(outcome))
        if len(pictures) < policy.min_images:
            detail = f"expected at least {policy.min_images} images, {len(pictures)} are left"
            raise RecordDropped(DocumentDrop.TOO_FEW_IMAGES, detail)
    except RecordDropped as dropped:
        outcome.drop = (dropped.reason, dropped.detail)
        for index in range(len(document.images)):
            outcome.dropped_images.setdefault(index, (ImageDrop.DOCUMENT_DROPPED, ""))
        outcome.notes = []
        return outcome
    outcome.notes = [note for note in outcome.notes if note[0] not in outcome.dropped_images]
    similarity = document.similarity[[picture.index for picture in pictures]]
    outcome.parts = _member(document, pictures, matched, similarity)
    outcome.row = _row(document, pictures, matched, similarity, outcome.parts)
    return outcome


def _check_url(document: SourceDocument, policy: AssemblyPolicy) -> None:
    """MMC4's mark: 1 where a document's URL may stand in the corpus more than once."""
    mark = document.extras.get("could_have_url_duplicate", b"")
    if policy.drop_url_duplicates and bytes(mark) in (b"1", b"true"):
        raise RecordDropped(DocumentDrop.URL_DUPLICATE, "$.could_have_url_duplicate: is 1")


def _why_none_left(outcome: Outcome) -> str:
    reasons = sorted({str(reason) for reason, _ in outcome.dropped_images.values()})
    return f"all {len(outcome.dropped_images)} images were dropped: {', '.join(reasons)}"


def _pictures(
    document: SourceDocument,
    read_image: Callable[[str], bytes],
    policy: AssemblyPolicy,
    outcome: Outcome,
) -> list[_Picture]:
    """Read and check every image of a document."""
    pictures: list[_Picture] = []
    seen: set[str] = set()
    total_bytes = 0
    for index, image in enumerate(document.images):
        try:
            if image.problem:
                raise ImageRejected(ImageDrop.MISSING, image.problem)
            picture, notes = _picture(index, image.name, read_image(image.name), policy.images)
        except ImageRejected as rejected:
            _refuse(outcome, index, image.name, rejected, policy)
            continue
        if policy.drop_duplicate_images and picture.sha256 in seen:
            detail = f"{image.name}: equal to an image before it"
            outcome.dropped_images[index] = (ImageDrop.DUPLICATE_IN_DOCUMENT, detail)
            continue
        seen.add(picture.sha256)
        total_bytes += picture.num_bytes
        if total_bytes > policy.max_document_bytes:
            raise RecordDropped(
                DocumentDrop.IMAGES_TOO_LARGE,
                f"the images come to over {policy.max_document_bytes} bytes",
            )
        pictures.append(picture)
        outcome.notes += [(index, note, image.name) for note in notes]
    return pictures


def _picture(index: int, name: str, data: bytes, policy: ImagePolicy) -> tuple[_Picture, list[str]]:
    """Check one image; with what is remarkable about it."""
    prepared = prepare_image(data, policy)
    # Whether it was re-encoded is in the samples table and the counts, for each image.
    notes = [str(note) for note in prepared.notes if note != ImageNote.REENCODED]
    extension = os.path.splitext(name)[1].lower()
    if not prepared.reencoded and extension not in _EXTENSIONS[prepared.format]:
        notes.append(str(ImageNote.WRONG_EXTENSION))
    picture = _Picture(
        index,
        pybase64.b64encode(prepared.data),
        len(prepared.data),
        prepared.width,
        prepared.height,
        prepared.format,
        hashlib.sha256(prepared.data).hexdigest(),
        prepared.reencoded,
    )
    return picture, notes


def _refuse(
    outcome: Outcome, index: int, name: str, rejected: ImageRejected, policy: AssemblyPolicy
) -> None:
    """An image that did not pass, by the policy."""
    detail = rejected.detail if name in rejected.detail else f"{name}: {rejected.detail}"
    if policy.on_missing == "error":
        raise MissingImageError(f"image {index} ({name}): {rejected.reason}: {detail}")
    outcome.dropped_images[index] = (rejected.reason, detail)
    if policy.on_missing == "drop-document":
        missing = rejected.reason == ImageDrop.MISSING
        reason = DocumentDrop.IMAGE_MISSING if missing else DocumentDrop.IMAGE_UNUSABLE
        raise RecordDropped(reason, detail)


def _aligned(
    document: SourceDocument, pictures: list[_Picture], policy: AssemblyPolicy, outcome: Outcome
) -> tuple[list[_Picture], list[int]]:
    """The pictures in the order of their sentences, and those sentences.

    Where there are more than `max_images`, those with the greatest similarity to their sentences
    stay (of equals the first), and are aligned anew, since sentences have come free.
    """
    pictures, matched = _matched(document, pictures, policy, outcome)
    if policy.max_images is None or len(pictures) <= policy.max_images:
        return pictures, matched
    scores = [
        float(document.similarity[picture.index, sentence])
        for picture, sentence in zip(pictures, matched, strict=True)
    ]
    ranked = sorted(range(len(pictures)), key=lambda k: (-scores[k], pictures[k].index))
    for k in ranked[policy.max_images :]:
        detail = f"{policy.max_images} images have a greater similarity (--max-images)"
        outcome.dropped_images[pictures[k].index] = (ImageDrop.SURPLUS, detail)
    kept = sorted(ranked[: policy.max_images], key=lambda k: pictures[k].index)
    return _matched(document, [pictures[k] for k in kept], policy, outcome)


def _matched(
    document: SourceDocument, pictures: list[_Picture], policy: AssemblyPolicy, outcome: Outcome
) -> tuple[list[_Picture], list[int]]:
    """The pictures (in input order) aligned, and put in the order of their sentences."""
    if document.matched is not None:
        given = [document.matched[picture.index] for picture in pictures]
        order = sorted(range(len(pictures)), key=lambda k: (given[k], k))
        return [pictures[k] for k in order], [given[k] for k in order]
    similarity = document.similarity[[picture.index for picture in pictures]]
    aligned = align(similarity, policy.min_similarity)
    for k in aligned.below:
        detail = f"best free sentence is below --min-similarity {policy.min_similarity}"
        outcome.dropped_images[pictures[k].index] = (ImageDrop.LOW_SIMILARITY, detail)
    return [pictures[k] for k in aligned.rows], aligned.matched


def _member(
    document: SourceDocument, pictures: list[_Picture], matched: list[int], similarity: Similarity
) -> list[bytes]:
    """The sample's JSON: known fields in a fixed order, then the source's others as they came."""
    encode = msgspec.json.encode
    head = encode({"format_version": FORMAT_VERSION, "text_list": document.text_list})
    parts = [head[:-1], b',"image_info":[']
    for row, (picture, sentence) in enumerate(zip(pictures, matched, strict=True)):
        source = document.images[picture.index]
        fields: dict[str, Any] = {"image_name": source.name}
        fields |= {k: v for k, v in source.fields.items() if k not in _OWN_IMAGE_FIELDS}
        fields["matched_text_index"] = sentence
        fields["matched_sim"] = float(similarity[row, sentence])
        fields["width"], fields["height"] = picture.width, picture.height
        fields["format"], fields["sha256"] = picture.format, picture.sha256
        opening = b"," if row else b""
        parts += [opening + encode(fields)[:-1], b',"image_base64":"', picture.base64, b'"}']
    tail: dict[str, Any] = {
        "similarity_matrix": similarity.tolist(),
        "similarity_source": document.similarity_source,
        "alignment": document.alignment,
    }
    tail |= {k: v for k, v in document.extras.items() if k not in _OWN_FIELDS}
    parts += [b"],", encode(tail)[1:]]
    return parts


def _row(
    document: SourceDocument,
    pictures: list[_Picture],
    matched: list[int],
    similarity: Similarity,
    parts: list[bytes],
) -> dict[str, Any]:
    """The samples table's row, but for key, offset and provenance."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    texts = [text.encode("utf-8") for text in document.text_list]
    scores = similarity[np.arange(len(matched)), matched].tolist() if matched else []
    return {
        "size": sum(map(len, parts)),
        "sha256": digest.hexdigest(),
        "sentences": len(texts),
        "text_bytes": sum(map(len, texts)),
        "text_sha256": hashlib.sha256(b"".join(text + b"\n" for text in texts)).hexdigest(),
        "matched": matched,
        "similarity": scores,
        "margin": _margins(similarity, matched, scores),
        "image_bytes": [picture.num_bytes for picture in pictures],
        "width": [picture.width for picture in pictures],
        "height": [picture.height for picture in pictures],
        "format": [picture.format for picture in pictures],
        "image_sha256": [picture.sha256 for picture in pictures],
        "reencoded": [picture.reencoded for picture in pictures],
    }


def _margins(similarity: Similarity, matched: list[int], scores: list[float]) -> list[float | None]:
    """How much better each image's sentence is than its best other one; None without another."""
    if similarity.shape[1] < 2:
        return [None] * len(matched)
    others = similarity.copy()
    others[np.arange(len(matched)), matched] = -np.inf
    best = others.max(axis=1).tolist() if matched else []
    return [score - other for score, other in zip(scores, best, strict=True)]
