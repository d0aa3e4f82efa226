"""LLaVA, ADNI, ShareGPT and OpenAI-style messages: turns, and images that they refer to."""

from typing import TypeVar

import msgspec

from mmdata.sources.base import RecordDropped, SourceImage
from mmdata.sources.conversations.images import listed, source_image
from mmdata.sources.conversations.placeholders import Tag, split_tags
from mmdata.sources.conversations.placing import Utterance
from schemas.conversation import ContentPart, Dialogue, ImageReference, Turn
from schemas.reasons import DocumentDrop

Record = TypeVar("Record")

_DIALOGUE = msgspec.json.Decoder(Dialogue)
USED = ("conversations", "messages", "image", "images")


def read_dialogue(
    record: bytes, others: tuple[str, ...]
) -> tuple[list[Utterance], list[SourceImage]]:
    """The turns of a record, and the images that placeholders stand for.

    Args:
        record: a JSON object.
        others: further placeholders.

    Raises:
        RecordDropped: a field is missing or of another type, or there is no turn.
    """
    found = decode(_DIALOGUE, record)
    key = "conversations" if isinstance(found.conversations, list) else "messages"
    turns = getattr(found, key)
    if not isinstance(turns, list):
        raise RecordDropped(
            DocumentDrop.BAD_SCHEMA, "$.conversations: expected an array of turns, got nothing"
        )
    if not turns:
        raise RecordDropped(DocumentDrop.NO_TEXT, f"$.{key}: expected a turn, got none")
    references: list[tuple[ImageReference | None, str]] = []
    for name in ("image", "images"):
        for index, reference in enumerate(listed(getattr(found, name))):
            references.append((reference, f"$.{name}[{index}]"))
    images = [source_image(ref, index, path) for index, (ref, path) in enumerate(references)]
    number = len(images)
    utterances = []
    for index, turn in enumerate(turns):
        utterance = _utterance(turn, f"$.{key}[{index}]", number, others)
        number += sum(isinstance(piece, SourceImage) for piece in utterance.pieces)
        utterances.append(utterance)
    return utterances, images


def _utterance(turn: Turn, path: str, number: int, others: tuple[str, ...]) -> Utterance:
    """One turn; `number` is that of the next image that stands in a turn."""
    role = turn.role if turn.role is not None else turn.sender or ""
    content = turn.content if turn.value is msgspec.UNSET else turn.value
    if content is msgspec.UNSET:
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, f"{path}: expected value or content, got none")
    if isinstance(content, str):
        return Utterance(role, [*split_tags(content, others)])
    pieces: list[str | Tag | SourceImage] = []
    for index, part in enumerate(content):
        where = f"{path}.content[{index}]"
        if index:
            pieces.append("\n")
        pieces += _part(part, where, number, others)
        number += isinstance(pieces[-1] if pieces else None, SourceImage)
    return Utterance(role, pieces)


def _part(
    part: ContentPart, path: str, number: int, others: tuple[str, ...]
) -> list[str | Tag | SourceImage]:
    """A text in pieces, an image, or (where it says no more than that there is one) a tag."""
    if part.text is not None:
        return [*split_tags(part.text, others)]
    reference = part.image_url if part.image_url is not None else part.image
    if reference is not None:
        return [source_image(reference, number, path)]
    if part.type in ("image", "input_image", "image_url"):
        return [Tag()]
    raise RecordDropped(
        DocumentDrop.BAD_SCHEMA, f"{path}: expected a text or an image, got {part.type[:40]!r}"
    )


def decode(decoder: "msgspec.json.Decoder[Record]", record: bytes) -> Record:
    """A record of a known format, typed.

    Raises:
        RecordDropped: with the path of what does not fit.
    """
    try:
        return decoder.decode(record)
    except msgspec.DecodeError as error:
        text = str(error).replace("`", "")
        message, _, at = text.partition(" - at ")
        detail = f"{at or '$'}: {message}"
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, detail) from None
