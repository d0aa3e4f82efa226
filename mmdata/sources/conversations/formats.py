"""The formats of convert-custom: told apart by their fields, each parsed to a document.

What a record says of which image belongs to which text is its structure, so the alignment is
`given`: 1.0 at the turn and 0.0 elsewhere, until a CLIP computes real similarities. An MMC4
document keeps its own matrix and alignment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from mmdata.sources import mmc4
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.conversations import dialogue, sequences
from mmdata.sources.conversations.images import source_image
from mmdata.sources.conversations.packed import unpack
from mmdata.sources.conversations.placing import OnTagMismatch, Placed, Utterance, place
from mmdata.sources.conversations.roles import render
from mmdata.sources.strict_json import decode_object
from schemas.reasons import DocumentDrop

Format = Literal["llava", "sharegpt", "messages", "mmc4", "obelics", "chatgpt"]
SOURCE = "placeholder"
_PAYLOADS = ("image_base64", "bytes")


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read.

    Attributes:
        format: None: each record is looked at.
        roles: `keep`, `drop`, or a template.
        on_tag_mismatch: what placeholders that do not fit the images do.
        placeholders: further ones than those that are known.
        matrix_wanted: false where a CLIP computes the similarities.
    """

    format: Format | None = None
    roles: str = "keep"
    on_tag_mismatch: OnTagMismatch = "first-turn"
    placeholders: tuple[str, ...] = ()
    matrix_wanted: bool = True


def recognise(fields: dict[str, msgspec.Raw]) -> Format | None:
    """The format of a record by its fields; None where it is none of those that are known."""
    if "example" in fields and ("image_map" in fields or "is_gpt" in fields):
        return "chatgpt"
    if "text_list" in fields:
        return "mmc4"
    if "conversations" in fields:
        return "sharegpt" if "images" in fields else "llava"
    if "messages" in fields:
        return "messages"
    return "obelics" if "texts" in fields and "images" in fields else None


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
    if kind == "mmc4":
        return _mmc4(record, reading)
    images: Sequence[SourceImage] = ()
    used: tuple[str, ...]
    if kind == "obelics":
        turns, used = sequences.read_obelics(record), sequences.OBELICS_USED
    elif kind == "chatgpt":
        turns, used = sequences.read_chatgpt(record), sequences.CHATGPT_USED
    else:
        turns, images = dialogue.read_dialogue(record, reading.placeholders)
        used = dialogue.USED
    for name in used:
        fields.pop(name, None)
    return _document(turns, place(turns, images, reading.on_tag_mismatch), fields, reading)


def _document(
    turns: Sequence[Utterance],
    placed: Placed,
    fields: dict[str, msgspec.Raw],
    reading: Reading,
) -> SourceDocument:
    """Turns and their images as a document."""
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
        extras=fields,
        matched=placed.matched,
        notes=placed.notes,
        roles=roles if reading.roles == "keep" and any(roles) else None,
    )


def _mmc4(record: bytes, reading: Reading) -> SourceDocument:
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
