"""From a sample of a shard to a record: texts, encoded images, and what selection needs to know.

Three layouts are read: our documents, OpenFlamingo's (the same without our additions) and
img2dataset's pairs. Only what training uses is decoded, and of the images nothing yet: base64 is
measured by its length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import pybase64

from mmdata.shards.pictures_in_json import cut_pictures
from mmdata.training_view.selection import Candidates, DocumentReason
from schemas.manifest import KINDS

RecordRule = Literal["interleaved", "caption"]
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


class _Image(msgspec.Struct):
    image_base64: str | None = None
    matched_text_index: Any = None
    matched_sim: Any = None


class _Document(msgspec.Struct):
    """Looser than the contract: OpenFlamingo's loader reads documents that have less."""

    text_list: list[str] | None = None
    image_info: list[_Image] | None = None
    similarity_matrix: list[list[float]] | None = None
    similarity_source: Any = None
    alignment: Any = None
    is_gpt: Any = None


_DECODER = msgspec.json.Decoder(_Document)
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Base64:
    """An image's base64 text, as bytes."""

    text: memoryview

    @property
    def num_bytes(self) -> int | None:
        """Size of the file in it; None of no text."""
        end = bytes(self.text[-2:])
        size = len(self.text) * 3 // 4 - end.endswith(b"=") - end.endswith(b"==")
        return size if end else None


@dataclass(frozen=True, slots=True)
class Record:
    """What a sample holds.

    Attributes:
        texts: sentences, or the one caption.
        images: encoded files, in base64 or as they are; None where the document has none.
        candidates: the same images for `mmdata.training_view.selection`.
    """

    texts: list[str]
    images: Sequence[Base64 | memoryview | None]
    candidates: Candidates


class UnusableError(ValueError):
    """A sample is no record of the kind that the stream reads."""

    def __init__(self, reason: DocumentReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def read_record(members: Mapping[str, memoryview], rule: RecordRule) -> Record:
    """The record in a sample's members.

    Args:
        members: data of a sample's members by extension.
        rule: of the stream: documents, or one image with its text.

    Raises:
        UnusableError: the sample is no such record; says the reason.
    """
    if rule == "interleaved":
        if "json" not in members or not members.keys().isdisjoint(IMAGE_EXTENSIONS):
            raise UnusableError(DocumentReason.NOT_INTERLEAVED)
        return _document(members["json"])
    extension = next((name for name in IMAGE_EXTENSIONS if name in members), None)
    if extension is not None:
        return _pair(members[extension], members.get("txt"))
    if "json" not in members:
        raise UnusableError(DocumentReason.NOT_A_PAIR)
    record = _document(members["json"])
    if len(record.images) != 1 or record.images[0] is None:
        raise UnusableError(DocumentReason.NOT_A_PAIR)
    return _with_caption(" ".join(record.texts), record.images[0])


def likely_rule(members: Mapping[str, memoryview]) -> RecordRule | None:
    """What a sample looks like; None when like nothing that training reads."""
    if not members.keys().isdisjoint(IMAGE_EXTENSIONS):
        return "caption" if "txt" in members else None
    try:
        record = _document(members["json"])
    except (KeyError, UnusableError):
        return None
    return rule_of_kind(record.candidates.similarity_source)


def rule_of_kind(kind: str) -> RecordRule:
    """By which rule the samples of a kind of conversion are read.

    Args:
        kind: as a manifest has it, or a similarity source, which is called after it; of what is
            neither, documents are interleaved.
    """
    facts = KINDS.get(kind)
    return facts.rule if facts else "interleaved"


def image_bytes(image: Base64 | memoryview) -> bytes:
    """The encoded file.

    Raises:
        ValueError: it is not base64.
    """
    if isinstance(image, Base64):
        return pybase64.b64decode(image.text, validate=True)
    return bytes(image)


def _document(data: memoryview) -> Record:
    try:
        document, images = _decode(bytes(data))
    except _DECODE_ERRORS as error:
        raise UnusableError(DocumentReason.BAD_RECORD) from error
    if document.is_gpt is not None:
        raise UnusableError(DocumentReason.UNSUPPORTED)
    if document.text_list is None or document.image_info is None:
        raise UnusableError(DocumentReason.BAD_RECORD)
    if not document.text_list:
        raise UnusableError(DocumentReason.NO_TEXT)
    sizes = [None if image is None else image.num_bytes for image in images]
    candidates = _candidates(document, len(document.text_list), document.image_info, sizes)
    return Record(document.text_list, images, candidates)


def _decode(data: bytes) -> tuple[_Document, list[Base64 | None]]:
    """A document, and the base64 texts of its `image_info` apart."""
    cut = cut_pictures(data)
    document = _DECODER.decode(cut.rest)
    texts = [image.image_base64 for image in document.image_info or []]
    return document, [None if text is None else Base64(cut.picture(text)) for text in texts]


def _candidates(
    document: _Document, num_sentences: int, images: list[_Image], sizes: list[int | None]
) -> Candidates:
    try:
        matrix = None
        if document.similarity_matrix is not None:
            matrix = np.array(document.similarity_matrix, dtype=np.float64)
    except ValueError as error:  # rows of different lengths
        raise UnusableError(DocumentReason.BAD_ALIGNMENT) from error
    matched = [image.matched_text_index for image in images]
    similarity = [image.matched_sim for image in images]
    known = all(type(index) is int for index in matched)
    return Candidates(
        image_bytes=sizes,
        alignment="given" if document.alignment == "given" else "assigned",
        similarity_source=str(document.similarity_source or ""),
        matrix=matrix,
        matched=matched if known else None,
        similarity=similarity if known and all(map(_is_number, similarity)) else None,
        num_sentences=num_sentences,
    )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _pair(image: memoryview, text: memoryview | None) -> Record:
    if text is None:
        raise UnusableError(DocumentReason.NO_TEXT)
    try:
        caption = str(text, "utf-8")
    except UnicodeDecodeError as error:
        raise UnusableError(DocumentReason.BAD_RECORD) from error
    return _with_caption(caption, image)


def _with_caption(caption: str, image: Base64 | memoryview) -> Record:
    if not caption.strip():
        raise UnusableError(DocumentReason.NO_TEXT)
    size = image.num_bytes if isinstance(image, Base64) else len(image)
    candidates = Candidates(image_bytes=[size], alignment="given", matched=[0], num_sentences=1)
    return Record([caption], [image], candidates)
