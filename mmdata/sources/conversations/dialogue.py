"""LLaVA, ADNI, ShareGPT and OpenAI-style messages: turns, and images that they refer to.

What says "image" is one: it is read, stands for an image of the record's list, or is an image that
is dropped and counted, with its keys. It never becomes silence, and never moves another picture.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import msgspec

from mmdata.sources.base import RecordDropped, SourceImage
from mmdata.sources.conversations.images import keys_of, listed, source_image
from mmdata.sources.conversations.placeholders import Tag, split_tags
from mmdata.sources.conversations.placing import Piece, Utterance, as_words, put_in
from mmdata.sources.conversations.roles import is_aside
from mmdata.sources.conversations.tools import called
from schemas.conversation import ContentPart, Dialogue, ImageReference, Images, Turn
from schemas.reasons import DocumentDrop

Record = TypeVar("Record")

_DIALOGUE = msgspec.json.Decoder(Dialogue)
_IMAGES: "msgspec.json.Decoder[Images]" = msgspec.json.Decoder(Images)
USED = ("conversations", "messages", "image", "images")
#: Keys of a part that point into the record's list of images, counted from 0.
_POINTERS = ("index", "image_index", "image")
#: Keys that say "image" whatever the type.
_IMAGE_KEYS = (
    *("image", "image_url", "image_path", "image_base64", "base64_image", "image_name"),
    *("image_file", "input_image", "img"),
)
#: Keys that say nothing of which image is meant.
_PLAIN = frozenset(
    ("type", "text", "detail", "cache_control", "min_pixels", "max_pixels", "alt", "alt_text")
)
_NOTHING = (b"null", b'""', b"[]", b"{}")
_LONGEST_NOTHING = 4
_LONGEST_INDEX = 10
_LONGEST_VALUE = 40
_TEXTS = ("text", "input_text", "output_text")
_MEDIA = b'"image/'
_HEAD_BYTES = 200


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
    reader = _Turns([reference for reference, _ in references], images, others)
    utterances = [
        reader.utterance(turn, f"$.{key}[{k}]", partial(_keys_of_turn, record, key, k))
        for k, turn in enumerate(turns)
    ]
    return utterances, images


class _Turns:
    """Turns one after the other, and the number of the next image that stands in one.

    Args:
        listed: the record's list of images, as it has them.
        images: the same as they are read.
        others: further placeholders.
    """

    def __init__(
        self,
        listed: Sequence[ImageReference | None],
        images: Sequence[SourceImage],
        others: tuple[str, ...],
    ) -> None:
        self._listed = listed
        self._places = {_what(image): k for k, image in reversed([*enumerate(images)])}
        self._others = others
        self._number = len(listed)

    def utterance(self, turn: Turn, path: str, keys: Callable[[], str]) -> Utterance:
        """One turn in pieces; `keys` are told of one that says nothing."""
        role = turn.role if turn.role is not None else turn.sender or ""
        content = turn.content if turn.value is msgspec.UNSET else turn.value
        if content is msgspec.UNSET and isinstance(turn.text, msgspec.Raw):
            text = msgspec.json.decode(turn.text)
            content = text if isinstance(text, str) else content
        calls = called(turn)
        if calls and content is msgspec.UNSET:
            content = ""
        if content is msgspec.UNSET or (content is None and not calls):
            got = "null" if content is None else f"the keys {keys()}"
            raise RecordDropped(
                DocumentDrop.BAD_SCHEMA, f"{path}: expected value or content, got {got}"
            )
        if isinstance(content, str | None):
            pieces = self._text(content or "", role)
        else:
            pieces = []
            for index, part in enumerate(content if isinstance(content, list) else [content]):
                pieces += ["\n"] if index else []
                pieces += self._part(part, f"{path}.content[{index}]", role)
        if calls:
            pieces += ["\n", calls] if pieces else [calls]
        own = [
            self._image(reference, f"{path}.{name}[{index}]")
            for name in ("image", "images")
            for index, reference in enumerate(_of_turn(getattr(turn, name)))
            if reference not in self._listed
        ]
        return Utterance(role, put_in(pieces, own))

    def _part(self, part: str | ContentPart, path: str, role: str) -> list[Piece]:
        """An image, a text in pieces, or both: nothing that a part says is passed over."""
        if isinstance(part, str):
            return self._text(part, role)
        kind, text = _value(part, "type", path), _value(part, "text", path)
        pieces = self._image_parts(part, path) if _says_image(part, kind) else []
        if text is not None and (text.strip() or not pieces):
            pieces += self._text(text, role)
        elif not pieces:
            got = repr(kind[:40]) if kind else f"the keys {keys_of(part)}"
            raise RecordDropped(
                DocumentDrop.BAD_SCHEMA, f"{path}: expected a text or an image, got {got}"
            )
        return pieces

    def _image_parts(self, part: ContentPart, path: str) -> list[Piece]:
        """The images of a part: one, or those of a list that it holds."""
        for name in ("image", "images"):
            if bytes(part.get(name, b"null")).startswith(b"["):
                with suppress(msgspec.DecodeError):
                    several = listed(_IMAGES.decode(part[name]))
                    paths = [f"{path}.{name}[{index}]" for index in range(len(several))]
                    found = [*map(self._image, several, paths)]
                    if found:
                        return [*map(self._of_list, found, paths)]
        return [self._image_part(part, path)]

    def _image_part(self, part: ContentPart, path: str) -> SourceImage | Tag:
        """An image that a part holds or points to; else a tag, which stands for the next.

        What it holds comes before what it points to: an index may also count a message's parts.
        """
        found = source_image(part, self._number, path)
        if not found.problem or found.name:
            self._number += 1
            return self._of_list(found, path)
        for name in _POINTERS:
            value = msgspec.json.decode(part.get(name, b"null"))
            number = _index(value)
            if number is not None and 0 <= number < len(self._listed):
                return self._pointing(number, f"{path}.{name}")
            if number is not None or (name != "image" and value is not None):
                count = len(self._listed)
                there = f"0 to {count - 1}" if count else "none, without a list of images"
                got = msgspec.json.encode(value).decode()[:_LONGEST_VALUE]
                problem = f"{path}.{name}: expected {there}, got {got}"
                return Tag(count, pointed=True, problem=problem)
        unsure = any(bytes(raw) != b"null" for name, raw in part.items() if name not in _PLAIN)
        return Tag(problem=found.problem, unsure=unsure)

    def _of_list(self, found: SourceImage, path: str) -> SourceImage | Tag:
        """An image that a part holds; once the one of the record's list, where it is there too."""
        place = None if found.problem else self._places.pop(_what(found), None)
        return found if place is None else self._pointing(place, path)

    def _pointing(self, number: int, path: str) -> Tag:
        """A part that means an image of the list, which can stand in one place only."""
        problem = f"{path}: image {number} of the list has its place in another part"
        return Tag(number, pointed=True, problem=problem)

    def _text(self, text: str, role: str) -> list[Piece]:
        """A text in pieces; `<img>a.jpg</img>` is the image that it names, where it may be one."""
        # Where the record lists its images, others in an answer are words about pictures.
        words = bool(self._listed) and is_aside(role)
        listed = self._listed
        pieces = as_words(
            split_tags(text, self._others),
            lambda tag: words and bool(tag.name) and tag.name not in listed,
        )
        return [self._named(p) if isinstance(p, Tag) and p.name else p for p in pieces]

    def _named(self, tag: Tag) -> SourceImage | Tag:
        """A placeholder that says which image it is: one of the list, or one of its own."""
        if tag.name in self._listed:
            return Tag(self._listed.index(tag.name), tag.words, pointed=True)
        return self._image(tag.name, "<img>")

    def _image(self, reference: ImageReference | None, path: str) -> SourceImage:
        self._number += 1
        return source_image(reference, self._number - 1, path)


def _what(image: SourceImage) -> tuple[str, str]:
    """What makes two references to an image the same."""
    return ("", image.embedded) if image.embedded else (image.name, "")


def _index(value: object) -> int | None:
    """A whole number, as parquet and CSV may have made it a float or a text; None of all else."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value) if len(value) < _LONGEST_INDEX else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _of_turn(field: msgspec.Raw | msgspec.UnsetType) -> list[ImageReference | None]:
    """The images of a turn's field; what can be none, such as a number of images, says nothing."""
    if isinstance(field, msgspec.UnsetType):
        return []
    try:
        return listed(_IMAGES.decode(field))
    except msgspec.DecodeError:
        return []


def _keys_of_turn(record: bytes, key: str, index: int) -> str:
    fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
    turns = msgspec.json.decode(fields[key], type=list[dict[str, msgspec.Raw]])
    return keys_of(turns[index])


def _value(part: ContentPart, name: str, path: str) -> str | None:
    """A field of a part that is a text or nothing.

    Raises:
        RecordDropped: it is something else.
    """
    try:
        return msgspec.json.decode(part.get(name, b"null"), type=str | None)
    except msgspec.DecodeError as error:
        text = str(error).replace("`", "")
        raise RecordDropped(DocumentDrop.BAD_SCHEMA, f"{path}.{name}: {text}") from None


def _says_image(part: ContentPart, kind: str | None) -> bool:
    """Whether a part is, or holds, an image by its type, its keys or its media type."""
    word = (kind or "").lower()
    if "image" in word or word == "img":
        return True
    if any(name in part and not _is_nothing(part[name]) for name in _IMAGE_KEYS):
        return True
    if word in _TEXTS:
        return False
    heads = (memoryview(raw)[:_HEAD_BYTES] for name, raw in part.items() if name != "text")
    return any(_MEDIA in bytes(head) for head in heads)


def _is_nothing(raw: msgspec.Raw) -> bool:
    view = memoryview(raw)
    return len(view) <= _LONGEST_NOTHING and bytes(view) in _NOTHING


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
