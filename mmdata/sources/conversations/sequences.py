"""Texts and images in one row: OBELICS, and OpenFlamingo's ChatGPT sequences.

An image goes with the text that follows it, and behind the last text with that.
"""

import re
from collections.abc import Iterator

import msgspec

from mmdata.sources.base import RecordDropped, SourceImage
from mmdata.sources.conversations.dialogue import decode
from mmdata.sources.conversations.images import source_image
from mmdata.sources.conversations.placing import Utterance
from schemas.conversation import ChatGptSequence, ObelicsRow
from schemas.reasons import DocumentDrop

_OBELICS = msgspec.json.Decoder(ObelicsRow)
_CHATGPT = msgspec.json.Decoder(ChatGptSequence)
_MARK = re.compile(r"(_!_IMAGE\d+_!_)")
OBELICS_USED = ("texts", "images")
#: `is_gpt` too: OpenFlamingo would read the document as a sequence of this kind.
CHATGPT_USED = ("example", "image_map", "is_gpt")


def read_obelics(record: bytes) -> list[Utterance]:
    """The texts of a row, each with the images before it.

    Raises:
        RecordDropped: not a row of OBELICS.
    """
    row = decode(_OBELICS, record)
    if len(row.texts) != len(row.images):
        raise RecordDropped(
            DocumentDrop.BAD_SCHEMA,
            f"$.images: expected {len(row.texts)} places, as in texts, got {len(row.images)}",
        )
    return _gather(_obelics_pieces(row))


def _obelics_pieces(row: ObelicsRow) -> Iterator[str | SourceImage]:
    number = 0
    for index, (text, reference) in enumerate(zip(row.texts, row.images, strict=True)):
        if reference is not None:
            yield source_image(reference, number, f"$.images[{index}]")
            number += 1
        if text is not None:
            yield text


def read_chatgpt(record: bytes) -> list[Utterance]:
    """The texts of a sequence, cut where images stand, each with the images before it.

    Raises:
        RecordDropped: not such a sequence, or a mark is not in its map.
    """
    sequence = decode(_CHATGPT, record)
    return _gather(_chatgpt_pieces(sequence))


def _chatgpt_pieces(sequence: ChatGptSequence) -> Iterator[str | SourceImage]:
    number = 0
    for piece in _MARK.split(sequence.example):
        if not _MARK.fullmatch(piece):
            yield piece.strip()
            continue
        reference = sequence.image_map.get(piece)
        if reference is None:
            raise RecordDropped(
                DocumentDrop.BAD_SCHEMA, f"$.image_map: expected {piece}, which the text has"
            )
        yield source_image(reference, number, f"$.image_map.{piece}")
        number += 1


def _gather(pieces: Iterator[str | SourceImage]) -> list[Utterance]:
    """One utterance a text; images behind the last text are put at its end."""
    found: list[Utterance] = []
    waiting: list[SourceImage] = []
    for piece in pieces:
        if isinstance(piece, SourceImage):
            waiting.append(piece)
        elif piece.strip():
            found.append(Utterance("", [*waiting, piece]))
            waiting = []
    if not found:
        raise RecordDropped(DocumentDrop.NO_TEXT, "expected a text, got none")
    found[-1].pieces.extend(waiting)
    return found
