"""A `{key}.json` member put right: what can be mended without inventing data is, the rest drops.

An image whose bytes, row of the matrix or sentence cannot be had leaves its document, and the rest
is aligned anew; a document drops where nothing says what belongs together (a matrix of another
number of rows) or nothing is left. An assignment that is optimal over the images that stay is kept
as it is, so that a document without faults comes out byte for byte.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmdata.assemble import AssemblyPolicy, Draft, Outcome, Picture, drop, finish
from mmdata.images import ImageRejected, prepare_image
from mmdata.repair.base64_text import mend_base64
from mmdata.repair.found import Row
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.mmc4 import decode_field
from mmdata.sources.strict_json import decode_object
from mmdata.validation.document_rules import not_optimal
from mmdata.wording import plural
from schemas.document import Window
from schemas.reasons import DocumentDrop, ImageDrop, ImageNote, RepairNote

#: Cosines of float32 vectors leave [-1, 1] by rounding only.
_COSINE_BOUND = 1.0 + 1e-4
_SIMILARITY_TOLERANCE = 1e-6
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
class _Image:
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


@dataclass(frozen=True, slots=True)
class _Known:
    """The images of a document by the samples table: their sha256, and whether it has no others.

    A document that is not what the table was made from may hold images of another one.
    """

    sha256: set[str]
    all_of_them: bool


@dataclass(slots=True)
class _Read:
    """A document, as far as it can be read."""

    text_list: list[str]
    images: list[_Image]
    similarity_source: str
    alignment: Literal["assigned", "given"]
    extras: dict[str, msgspec.Raw]
    ours: bool
    roles: list[str] | None = None
    notes: list[tuple[int | None, str, str]] = field(default_factory=list)


def mend_document(
    raw: bytes, policy: AssemblyPolicy, row: Row | None = None, *, vouched: bool = True
) -> Outcome:
    """What becomes of a member of a damaged shard.

    Args:
        raw: its bytes.
        policy: of its images.
        row: of the samples table, where there is one.
        vouched: something says that the bytes belong together. Where nothing does, an image that
            cannot be had may mean that parts of two documents have come together, and the whole is
            given up.

    Returns:
        The sample as it should be, with a note for each thing that was set right, or why there is
        none.
    """
    try:
        read = _read(raw)
    except RecordDropped as dropped:
        return Outcome(drop=(dropped.reason, dropped.detail))
    outcome = Outcome(notes=read.notes)
    sources = [image.source for image in read.images]
    document = SourceDocument(
        read.text_list,
        sources,
        _matrix(read),
        read.similarity_source,
        read.alignment,
        read.extras,
        roles=read.roles,
    )
    if not sources:
        policy = replace(policy, keep_text_only=True)  # it was meant to be without
    changed = row is not None and hashlib.sha256(raw).hexdigest() != row["sha256"]
    known = _Known(set() if row is None else set(row["image_sha256"]), all_of_them=changed)
    draft = Draft(document, policy, list(_pictures(read, outcome, policy, known)), outcome)
    if outcome.dropped_images and not vouched and row is None:
        drop(draft, DocumentDrop.LOST, _why_unvouched(outcome))
        return outcome
    draft.document = replace(document, matched=_matched(read, draft))
    finished = _as_it_was(finish(draft), raw, read)
    if changed and row and finished.row and finished.row["text_sha256"] != row["text_sha256"]:
        detail = "its sentences are not those that the samples table was made from"
        finished.notes.append((None, RepairNote.TEXT_DIFFERS.value, detail))
    return finished


def _why_unvouched(outcome: Outcome) -> str:
    index, (reason, detail) = next(iter(outcome.dropped_images.items()))
    return (
        f"no header says how long it is, and image {index} is {reason} ({detail}): parts of two "
        "documents may have come together"
    )


def _as_it_was(outcome: Outcome, raw: bytes, read: _Read) -> Outcome:
    """The member's own bytes, where what was made of it says the same: nothing had to be mended."""
    made = b"".join(outcome.parts)
    if made == raw:
        return outcome
    untouched = read.ours and not outcome.notes and not outcome.dropped_images
    if made and untouched and msgspec.json.decode(made) == msgspec.json.decode(raw):
        outcome.parts = [raw]
        outcome.row |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    return outcome


def _read(raw: bytes) -> _Read:
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
    given = _value(fields.get("alignment"), str) == "given"
    read = _Read(
        text_list=text_list,
        images=[_image(info, index, notes) for index, info in enumerate(infos)],
        similarity_source=_value(fields.get("similarity_source"), str) or "mmc4",
        alignment="given" if given else "assigned",
        extras={},
        ours="format_version" in fields,
        notes=notes,
    )
    _read_matrix(fields, read)
    _read_roles(fields, read)
    for image in read.images:
        if given and not image.problem and not _is_index(image.index, text_list):
            detail = f"matched_text_index: expected 0 to {len(text_list) - 1}, got {image.index}"
            image.problem = (ImageDrop.NO_SENTENCE, detail)
    read.extras = {name: value for name, value in fields.items() if name not in _CONSUMED}
    return read


def _read_roles(fields: dict[str, msgspec.Raw], read: _Read) -> None:
    """Take over who says each sentence; what cannot be that gives way, with a note."""
    if "roles" not in fields:
        return
    roles = _value(fields["roles"], list[str])
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


def _value(raw: msgspec.Raw | None, kind: type[Value]) -> Value | None:
    """A field of a type; None where it is missing or of another."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError:
        return None


def _image(
    info: dict[str, msgspec.Raw], index: int, notes: list[tuple[int | None, str, str]]
) -> _Image:
    name = _value(info.get("image_name"), str)
    if name is None and "image_name" in info:
        got = bytes(info["image_name"])[:40].decode("utf-8", "replace")
        detail = f"image_name: expected a string, got {got}; it is empty now"
        notes.append((index, RepairNote.FACTS_CORRECTED.value, detail))
    kept = {key: value for key, value in info.items() if key not in _CONSUMED_OF_IMAGE}
    kept.pop("image_base64", None)
    image = _Image(
        SourceImage(name or "", kept),
        _value(info.get("image_base64"), str),
        _value(info.get("matched_text_index"), int),
        _value(info.get("matched_sim"), float),
        {
            "width": _value(info.get("width"), int),
            "height": _value(info.get("height"), int),
            "format": _value(info.get("format"), str),
            "sha256": _value(info.get("sha256"), str),
        },
    )
    if image.payload is None:
        image.problem = (ImageDrop.MISSING, "expected image_base64, got nothing")
    return image


def _read_matrix(fields: dict[str, msgspec.Raw], read: _Read) -> None:
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
    if not largest <= _COSINE_BOUND:
        raise ValueError(f"expected cosines, got {largest:g} (x 100?)")
    return scores


def _matrix(read: _Read) -> NDArray[np.float64]:
    """The matrix; rows that cannot be used are zero, and their images drop."""
    zeros = [0.0] * len(read.text_list)
    rows = [zeros if image.scores is None else image.scores for image in read.images]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(read.text_list))


def _pictures(
    read: _Read, outcome: Outcome, policy: AssemblyPolicy, known: _Known
) -> Iterator[Picture]:
    """The images that stay; what becomes of the others goes to the outcome.

    Args:
        read: the document.
        outcome: that is added to.
        policy: of its images.
        known: the images that it had by the samples table.
    """
    for index, image in enumerate(read.images):
        name = image.source.name
        if image.problem:
            reason, detail = image.problem
            outcome.dropped_images[index] = (reason, f"{name}: {detail}" if name else detail)
            continue
        try:
            yield _picture(index, image, read, outcome, policy, known)
        except ImageRejected as rejected:
            detail = f"{name}: {rejected.detail}" if name else rejected.detail
            outcome.dropped_images[index] = (rejected.reason, detail)


def _picture(
    index: int,
    image: _Image,
    read: _Read,
    outcome: Outcome,
    policy: AssemblyPolicy,
    known: _Known,
) -> Picture:
    data, mends = mend_base64(image.payload or "")
    digest = hashlib.sha256(data).hexdigest()
    recorded = image.facts["sha256"]
    differs = read.ours and recorded != digest and not mends
    if digest not in known.sha256 and (differs or known.all_of_them):
        detail = f"its bytes are not those that it was written with (sha256 {recorded})"
        raise ImageRejected(ImageDrop.HASH_MISMATCH, detail)
    prepared = prepare_image(data, policy.images)
    if mends:
        outcome.notes.append((index, RepairNote.BASE64_MENDED.value, "; ".join(mends)))
    for note in prepared.notes:
        if note != ImageNote.REENCODED:
            outcome.notes.append((index, note.value, image.source.name))
    if not prepared.reencoded:
        facts = {"width": prepared.width, "height": prepared.height, "format": prepared.format}
        _note_facts(index, image, facts | {"sha256": digest}, outcome)
    return Picture.of(index, prepared, window=_value(image.source.fields.get("window"), Window))


def _note_facts(index: int, image: _Image, facts: dict[str, Any], outcome: Outcome) -> None:
    """Say what an image's fields said wrongly of it."""
    wrong = [
        f"{name}: was {image.facts[name]}, is {value}"
        for name, value in facts.items()
        if image.facts[name] is not None and image.facts[name] != value
    ]
    if wrong:
        outcome.notes.append((index, RepairNote.FACTS_CORRECTED.value, "; ".join(wrong)))


def _is_index(index: int | None, text_list: list[str]) -> bool:
    return index is not None and 0 <= index < len(text_list)


def _matched(read: _Read, draft: Draft) -> list[int] | None:
    """The sentence of each image where the document's own assignment stands; None: anew."""
    kept = [picture.index for picture in draft.pictures]
    stated = [image.index for image in read.images]
    indices = [index if _is_index(index, read.text_list) else None for index in stated]
    matched = [index or 0 for index in indices]
    if not kept:
        return matched
    if read.alignment == "assigned":
        found = [indices[index] for index in kept]
        sound = [index for index in found if index is not None]
        similarity = _matrix(read)[kept]
        problem = ("an index for each image", "none for some")
        wrong = problem if len(sound) != len(kept) else not_optimal(similarity, sound)
        if wrong is not None:
            if not draft.outcome.dropped_images:  # with these it goes without saying
                detail = f"expected {wrong[0]}, got {wrong[1]}"
                draft.outcome.notes.append((None, RepairNote.REALIGNED.value, detail))
            return None
    _note_order(read, draft, [matched[index] for index in kept])
    return matched


def _note_order(read: _Read, draft: Draft, matched: list[int]) -> None:
    """Say where images change places, or `matched_sim` was not the matrix's value."""
    notes = draft.outcome.notes
    if matched != sorted(matched):
        detail = f"the images stood at sentences {', '.join(map(str, matched[:20]))}"
        notes.append((None, RepairNote.REORDERED.value, detail))
    for picture, sentence in zip(draft.pictures, matched, strict=True):
        image = read.images[picture.index]
        value = (image.scores or [])[sentence]
        if image.sim is not None and not abs(image.sim - value) <= _SIMILARITY_TOLERANCE:
            detail = f"matched_sim: was {image.sim}, is {value}"
            notes.append((picture.index, RepairNote.SIMILARITY_CORRECTED.value, detail))
