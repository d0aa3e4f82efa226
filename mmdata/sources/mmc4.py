"""MMC4 records (https://github.com/allenai/mmc4): one JSON object a line.

What is used: `text_list`, `image_info[].image_name`, `similarity_matrix`. The matched indices of
the source are checked and counted where they are off, but computed anew, since images that are
missing change the assignment. Everything else is carried along as it stands.
"""

import os
import re
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.records import Segment
from mmdata.sources.strict_json import decode_object
from mmdata.wording import plural
from schemas.reasons import DocumentDrop, DocumentNote

KIND = "mmc4"
#: Cosines of float32 vectors leave [-1, 1] by rounding only.
_COSINE_BOUND = 1.0 + 1e-4

Value = TypeVar("Value")
_STRINGS = msgspec.json.Decoder(list[str])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_MATRIX = msgspec.json.Decoder(list[list[float]])


def parse_record(record: bytes, *, matrix_wanted: bool = True) -> SourceDocument:
    """One record as a document with image references.

    Args:
        record: one line.
        matrix_wanted: false where similarities are computed anew: the record's are not looked at,
            and need not be there.

    Raises:
        RecordDropped: the record is broken; see docs/format.md for the reasons.
    """
    fields = decode_object(record)
    text_list = decode_field(fields, "text_list", _STRINGS, DocumentDrop.BAD_SCHEMA)
    if not any(text.strip() for text in text_list):
        raise RecordDropped(DocumentDrop.NO_TEXT, "$.text_list: expected a sentence, got none")
    infos = decode_field(fields, "image_info", _OBJECTS, DocumentDrop.BAD_SCHEMA)
    similarity = _similarity(fields, len(infos), len(text_list)) if matrix_wanted else None
    images, notes = [], []
    for index, info in enumerate(infos):
        images.append(_image(info, index))
        if problem := _index_problem(info, index, len(text_list)):
            notes.append((DocumentNote.BAD_MATCHED_INDEX.value, problem))
    for known in ("text_list", "image_info", "similarity_matrix"):
        fields.pop(known, None)
    return SourceDocument(text_list, images, similarity, KIND, "assigned", fields, notes=notes)


def decode_field(
    fields: dict[str, msgspec.Raw],
    name: str,
    decoder: "msgspec.json.Decoder[Value]",
    reason: DocumentDrop,
) -> Value:
    """One field of a record, typed.

    Args:
        fields: of the record, undecoded.
        name: of the field.
        decoder: of its type.
        reason: that a record is dropped for where the field does not fit.

    Raises:
        RecordDropped: it is not there or of another type; says the path of what does not fit.
    """
    if name not in fields:
        raise RecordDropped(reason, f"$.{name}: expected an array, got nothing")
    try:
        return decoder.decode(fields[name])
    except msgspec.DecodeError as error:
        raise RecordDropped(reason, f"$.{name}: {str(error).replace('`', '')}") from None


def _similarity(
    fields: dict[str, msgspec.Raw], num_images: int, num_texts: int
) -> NDArray[np.float64]:
    """The record's own similarities."""
    if "similarity_matrix" not in fields:
        raise RecordDropped(
            DocumentDrop.NO_MATRIX, "$.similarity_matrix: expected a matrix, got nothing"
        )
    rows = decode_field(fields, "similarity_matrix", _MATRIX, DocumentDrop.BAD_MATRIX)
    return _matrix(rows, num_images, num_texts)


def _matrix(rows: list[list[float]], num_images: int, num_texts: int) -> NDArray[np.float64]:
    """The similarities as an (n_images, n_sentences) array."""
    widths = {len(row) for row in rows}
    if len(rows) != num_images or (rows and widths != {num_texts}):
        got = (
            f"{plural(len(rows), 'row')} of {', '.join(map(str, sorted(widths)))}"
            if rows
            else "no rows"
        )
        raise RecordDropped(
            DocumentDrop.BAD_MATRIX,
            f"$.similarity_matrix: expected {num_images} rows of {num_texts}, got {got}",
        )
    matrix = np.array(rows, dtype=np.float64).reshape(num_images, num_texts)
    if not np.isfinite(matrix).all():
        raise RecordDropped(DocumentDrop.NON_FINITE, "$.similarity_matrix: expected finite numbers")
    if matrix.size and np.abs(matrix).max() > _COSINE_BOUND:
        raise RecordDropped(
            DocumentDrop.BAD_MATRIX,
            f"$.similarity_matrix: expected cosines, got {np.abs(matrix).max():g} (x 100?)",
        )
    return matrix


def _image(info: dict[str, msgspec.Raw], index: int) -> SourceImage:
    raw = info.pop("image_name", None)
    try:
        name = msgspec.json.decode(raw, type=str) if raw is not None else ""
    except msgspec.DecodeError as error:
        text = str(error).replace("`", "")
        return SourceImage("", info, f"$.image_info[{index}].image_name: {text}")
    problem = "" if name else f"$.image_info[{index}].image_name: expected a name, got nothing"
    return SourceImage(name, info, problem)


def _index_problem(info: dict[str, msgspec.Raw], index: int, num_texts: int) -> str:
    """What is wrong with the source's matched index, which is then dropped and computed anew."""
    raw = info.pop("matched_text_index", None)
    info.pop("matched_sim", None)
    if raw is None:
        return ""
    try:
        value: int | None = msgspec.json.decode(raw, type=int)
    except msgspec.DecodeError:
        value = None
    if value is not None and 0 <= value < num_texts:
        return ""
    got = bytes(raw).decode("utf-8", "replace")[:40]
    path = f"$.image_info[{index}].matched_text_index"
    return f"{path}: expected 0 to {num_texts - 1}, got {got}; computed anew"


_SHARD_NUMBER = re.compile(r"shard_(\d+)")


@dataclass(frozen=True, slots=True)
class ShardName:
    """What the names of an input say of the shard that it is.

    Attributes:
        number: digits, or empty.
        stem: the file's name without its endings.
        in_file_name: whether the number is the file's, not its member's.
    """

    number: str
    stem: str
    in_file_name: bool


def shard_name(segment: Segment) -> ShardName:
    """The shard number from the name of an input, else of its member.

    `docs_no_face_shard_7_v2.jsonl.zip` is shard 7 whatever its place in the list.
    """
    file = os.path.basename(segment.path)
    stem = file.split(".jsonl")[0].removesuffix(".zip")
    for name in (file, os.path.basename(segment.member)):
        if match := _SHARD_NUMBER.search(name):
            return ShardName(str(int(match[1])), stem, in_file_name=name is file)
    return ShardName("", stem, in_file_name=False)
