"""The formats of convert-custom: told apart by their fields, each parsed to a document.

What a record says of which image belongs to which text is its structure, so the alignment is
`given`: 1.0 at the turn and 0.0 elsewhere, until a CLIP computes real similarities. An MMC4
document keeps its own matrix and alignment.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from mmdata.sources import mmc4
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.conversations import dialogue, sequences
from mmdata.sources.conversations.images import source_image
from mmdata.sources.conversations.packed import unpack
from mmdata.sources.conversations.placing import OnTagMismatch, Utterance, place
from mmdata.sources.conversations.roles import render
from mmdata.sources.strict_json import decode_object
from schemas.reasons import DocumentDrop

Fields = dict[str, msgspec.Raw]
SOURCE = "placeholder"
_PAYLOADS = ("image_base64", "bytes")


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read.

    Attributes:
        format: one of `FORMATS`; None: each record is looked at.
        roles: `keep`, `drop`, or a template.
        on_tag_mismatch: what placeholders that do not fit the images do.
        placeholders: further ones than those that are known.
        matrix_wanted: false where a CLIP computes the similarities.
    """

    format: str | None = None
    roles: str = "keep"
    on_tag_mismatch: OnTagMismatch = "first-turn"
    placeholders: tuple[str, ...] = ()
    matrix_wanted: bool = True


class RecordFormat(NamedTuple):
    """A format of records.

    Attributes:
        fits: whether a record is of this format, by its fields.
        parse: makes a document of a record: its bytes, its fields, and how it is read.
    """

    fits: Callable[[Fields], bool]
    parse: Callable[[bytes, Fields, Reading], SourceDocument]


def recognise(fields: Fields) -> str | None:
    """The format of a record by its fields; None where it is none of those that are known."""
    return next((name for name, one in FORMATS.items() if one.fits(fields)), None)


def parse_record(record: bytes, reading: Reading) -> SourceDocument:
    """One record as a document with image references.

    Args:
        record: the bytes of a JSON object.
        reading: how it is read: its format, placeholders, fields.

    Raises:
        RecordDropped: the record is broken or of no known format.
        RecordError: its placeholders do not fit, and that is to be an error.
    """
    fields = decode_object(record)
    if unpack(fields):
        record = msgspec.json.encode(fields)
    kind = reading.format or recognise(fields)
    if kind is None:
        names = ", ".join(sorted(fields)[:6]) or "none"
        raise RecordDropped(
            DocumentDrop.UNKNOWN_FORMAT,
            "expected conversations, messages, text_list, texts and images, or example and "
            f"image_map, got {names[:100]}",
        )
    return FORMATS[kind].parse(record, fields, reading)


def _dialogue(record: bytes, fields: Fields, reading: Reading) -> SourceDocument:
    turns, images = dialogue.read_dialogue(record, reading.placeholders)
    return document_of(turns, images, without(fields, dialogue.USED), reading)


def _obelics(record: bytes, fields: Fields, reading: Reading) -> SourceDocument:
    turns = sequences.read_obelics(record)
    return document_of(turns, (), without(fields, sequences.OBELICS_USED), reading)


def _chatgpt(record: bytes, fields: Fields, reading: Reading) -> SourceDocument:
    turns = sequences.read_chatgpt(record)
    return document_of(turns, (), without(fields, sequences.CHATGPT_USED), reading)


def without(fields: Fields, used: Collection[str]) -> Fields:
    """The fields of a record that its format does not read, which are carried along."""
    return {name: value for name, value in fields.items() if name not in used}


def document_of(
    turns: Sequence[Utterance],
    images: Sequence[SourceImage],
    extras: Fields,
    reading: Reading,
) -> SourceDocument:
    """Turns and their images as a document.

    Args:
        turns: with what stands in them.
        images: of the record, beside those that stand in its turns.
        extras: further fields, to be carried along.
        reading: how the record is read.

    Raises:
        RecordError: placeholders do not fit the images, and that is to be an error.
    """
    placed = place(turns, images, reading.on_tag_mismatch)
    roles = [turn.role for turn in turns]
    texts = placed.texts
    if reading.roles not in ("keep", "drop"):
        texts = render(texts, roles, reading.roles)
    similarity = None
    if reading.matrix_wanted:
        similarity = np.zeros((len(placed.images), len(texts)))
        similarity[np.arange(len(placed.images)), placed.matched] = 1.0
    return SourceDocument(
        text_list=texts,
        images=placed.images,
        similarity=similarity,
        similarity_source=SOURCE,
        alignment="given",
        extras=extras,
        matched=placed.matched,
        notes=placed.notes,
        roles=roles if reading.roles == "keep" and any(roles) else None,
    )


def _mmc4(record: bytes, _fields: Fields, reading: Reading) -> SourceDocument:
    """An MMC4 document, whose images may be in it as base64."""
    document = mmc4.parse_record(record, matrix_wanted=reading.matrix_wanted)
    for index, image in enumerate(document.images):
        payloads = {name: image.fields.pop(name) for name in _PAYLOADS if name in image.fields}
        if not payloads:
            continue
        path = f"$.image_info[{index}]"
        found = source_image(payloads, index, path)
        if found.embedded or not image.name:
            name = image.name or found.name
            document.images[index] = SourceImage(name, image.fields, found.problem, found.embedded)
    return document


#: By name, in the order in which a record is held against them.
FORMATS: dict[str, RecordFormat] = {
    "chatgpt": RecordFormat(
        lambda fields: "example" in fields and ("image_map" in fields or "is_gpt" in fields),
        _chatgpt,
    ),
    "mmc4": RecordFormat(lambda fields: "text_list" in fields, _mmc4),
    "sharegpt": RecordFormat(
        lambda fields: "conversations" in fields and "images" in fields, _dialogue
    ),
    "llava": RecordFormat(lambda fields: "conversations" in fields, _dialogue),
    "messages": RecordFormat(lambda fields: "messages" in fields, _dialogue),
    "obelics": RecordFormat(lambda fields: "texts" in fields and "images" in fields, _obelics),
}
