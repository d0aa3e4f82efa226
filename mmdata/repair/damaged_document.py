"""A `{key}.json` member of a damaged shard taken apart, as far as it can be read.

Each image keeps what is known of it, with the reason why it cannot stay where it cannot; a member
raises only where nothing says what belongs together.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmdata.sources.base import RecordDropped, SourceImage
from mmdata.sources.mmc4 import decode_field
from mmdata.sources.strict_json import decode_object
from mmdata.wording import plural
from schemas.reasons import DocumentDrop, ImageDrop, RepairNote

#: Cosines of float32 vectors leave [-1, 1] by rounding only.
COSINE_BOUND = 1.0 + 1e-4
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")
#: What a document says for itself; all else is carried along.
_CONSUMED = frozenset(
    {"text_list", "image_info", "similarity_matrix", "similarity_source", "alignment", "roles"}
)
_CONSUMED_OF_IMAGE = ("image_name", "matched_text_index", "matched_sim")

Value = TypeVar("Value")
_STRINGS = msgspec.json.Decoder(list[str])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_FLOATS = msgspec.json.Decoder(list[float])


@dataclass(slots=True)
class DamagedImage:
    """An image of a document, as far as it can be read.

    Attributes:
        source: its name, and the fields that are carried along.
        payload: its base64; None without one.
        index, sim: `matched_text_index` and `matched_sim`, None where they are no numbers.
        facts: width, height, format, sha256 as recorded.
        scores: its row of the matrix; None where that cannot be used.
        problem: (reason, detail) why it cannot stay.
    """

    source: SourceImage
    payload: str | None
    index: int | None
    sim: float | None
    facts: dict[str, Any]
    scores: list[float] | None = None
    problem: tuple[ImageDrop, str] | None = None


@dataclass(slots=True)
class DamagedDocument:
    """A document, as far as it can be read."""

    text_list: list[str]
    images: list[DamagedImage]
    similarity_source: str
    alignment: Literal["assigned", "given"]
    extras: dict[str, msgspec.Raw]
    ours: bool
    roles: list[str] | None = None
    notes: list[tuple[int | None, str, str]] = field(default_factory=list)


def read_damaged(raw: bytes) -> DamagedDocument:
    """A member, taken apart.

    Raises:
        RecordDropped: it is no document.
    """
    notes: list[tuple[int | None, str, str]] = []
    fields = _fields(raw, notes)
    text_list = decode_field(fields, "text_list", _STRINGS, DocumentDrop.BAD_SCHEMA)
    if not any(text.strip() for text in text_list):
        raise RecordDropped(DocumentDrop.NO_TEXT, "$.text_list: expected a sentence, got none")
    infos = decode_field(fields, "image_info", _OBJECTS, DocumentDrop.BAD_SCHEMA)
    given = value_of(fields.get("alignment"), str) == "given"
    read = DamagedDocument(
        text_list=text_list,
        images=[_image(info, index, notes) for index, info in enumerate(infos)],
        similarity_source=value_of(fields.get("similarity_source"), str) or "mmc4",
        alignment="given" if given else "assigned",
        extras={},
        ours="format_version" in fields,
        notes=notes,
    )
    _read_matrix(fields, read)
    _read_roles(fields, read)
    for image in read.images:
        if given and not image.problem and not is_index(image.index, text_list):
            detail = f"matched_text_index: expected 0 to {len(text_list) - 1}, got {image.index}"
            image.problem = (ImageDrop.NO_SENTENCE, detail)
    read.extras = {name: value for name, value in fields.items() if name not in _CONSUMED}
    return read


def _read_roles(fields: dict[str, msgspec.Raw], read: DamagedDocument) -> None:
    """Take over who says each sentence; what cannot be that gives way, with a note."""
    if "roles" not in fields:
        return
    roles = value_of(fields["roles"], list[str])
    if roles is not None and len(roles) == len(read.text_list):
        read.roles = roles
        return
    got = "no list of strings" if roles is None else f"{len(roles)}"
    sentences = plural(len(read.text_list), "sentence")
    detail = f"roles: expected one for each of {sentences}, got {got}; left out"
    read.notes.append((None, RepairNote.FACTS_CORRECTED.value, detail))


def _fields(raw: bytes, notes: list[tuple[int | None, str, str]]) -> dict[str, msgspec.Raw]:
    """The fields of a member; raw line breaks and the like in its strings are escaped first."""
    if raw.startswith(_BYTE_ORDER_MARK):
        raw = raw[len(_BYTE_ORDER_MARK) :]
        notes.append((None, RepairNote.JSON_MENDED.value, "byte order mark taken off"))
    try:
        return decode_object(raw)
    except RecordDropped as dropped:
        if dropped.reason != DocumentDrop.BAD_JSON:
            raise
        escaped = _STRING.sub(_escape_controls, raw)
        if escaped == raw:
            raise
        fields = decode_object(escaped)
    notes.append((None, RepairNote.JSON_MENDED.value, "control characters in strings escaped"))
    return fields


def _escape_controls(string: re.Match[bytes]) -> bytes:
    return _CONTROL.sub(lambda found: b"\\u%04x" % found[0][0], string[0])


def value_of(raw: msgspec.Raw | None, kind: type[Value]) -> Value | None:
    """A field of a type; None where it is missing or of another."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError:
        return None


def _image(
    info: dict[str, msgspec.Raw], index: int, notes: list[tuple[int | None, str, str]]
) -> DamagedImage:
    name = value_of(info.get("image_name"), str)
    if name is None and "image_name" in info:
        got = bytes(info["image_name"])[:40].decode("utf-8", "replace")
        detail = f"image_name: expected a string, got {got}; it is empty now"
        notes.append((index, RepairNote.FACTS_CORRECTED.value, detail))
    kept = {key: value for key, value in info.items() if key not in _CONSUMED_OF_IMAGE}
    kept.pop("image_base64", None)
    image = DamagedImage(
        SourceImage(name or "", kept),
        value_of(info.get("image_base64"), str),
        value_of(info.get("matched_text_index"), int),
        value_of(info.get("matched_sim"), float),
        {
            "width": value_of(info.get("width"), int),
            "height": value_of(info.get("height"), int),
            "format": value_of(info.get("format"), str),
            "sha256": value_of(info.get("sha256"), str),
        },
    )
    if image.payload is None:
        image.problem = (ImageDrop.MISSING, "expected image_base64, got nothing")
    return image


def _read_matrix(fields: dict[str, msgspec.Raw], read: DamagedDocument) -> None:
    """Give each image its row of the matrix; one that cannot be used costs its image only."""
    if not read.images:
        return
    if "similarity_matrix" not in fields:
        detail = "$.similarity_matrix: expected a matrix, got nothing (CLIP could make one)"
        raise RecordDropped(DocumentDrop.NO_MATRIX, detail)
    rows = decode_field(fields, "similarity_matrix", _ROWS, DocumentDrop.BAD_MATRIX)
    if len(rows) != len(read.images):
        raise RecordDropped(
            DocumentDrop.BAD_MATRIX,
            f"$.similarity_matrix: expected {plural(len(read.images), 'row')}, got "
            f"{len(rows)}: which image "
            "a row is of, nothing says",
        )
    for number, (image, raw) in enumerate(zip(read.images, rows, strict=True)):
        try:
            image.scores = _scores(raw, len(read.text_list))
        except ValueError as error:
            detail = f"similarity_matrix[{number}]: {error}"
            image.problem = image.problem or (ImageDrop.BAD_ROW, detail)


def _scores(raw: msgspec.Raw, num_sentences: int) -> list[float]:
    """A row of the matrix.

    Raises:
        ValueError: it is not a cosine for each sentence.
    """
    try:
        scores = _FLOATS.decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(str(error).replace("`", "")) from None
    if len(scores) != num_sentences:
        raise ValueError(f"expected {num_sentences} values, got {len(scores)}")
    largest = max(map(abs, scores), default=0.0)
    if not largest <= COSINE_BOUND:
        raise ValueError(f"expected cosines, got {largest:g} (x 100?)")
    return scores


def matrix_of(read: DamagedDocument) -> NDArray[np.float64]:
    """The matrix; rows that cannot be used are zero, and their images drop."""
    zeros = [0.0] * len(read.text_list)
    rows = [zeros if image.scores is None else image.scores for image in read.images]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(read.text_list))


def is_index(index: int | None, text_list: list[str]) -> bool:
    return index is not None and 0 <= index < len(text_list)
