"""A picture with its text put right: the pair is written anew from what of it can be read.

A text that is missing or no UTF-8 is restored from the `caption` of the JSON beside it; a picture
has no second copy, so its pair drops with it.
"""

import hashlib
from typing import Any

import msgspec
import numpy as np

from mmdata.images import ImageRejected, prepare_image
from mmdata.repair.damaged_document import COSINE_BOUND, value_of
from mmdata.repair.found import Row
from mmdata.samples.assemble import AssemblyPolicy, Draft, Outcome, Picture
from mmdata.samples.pairs import PairOutcome, finish_pair
from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.strict_json import decode_object
from mmdata.validation.tar_rules import IMAGE_EXTENSIONS, TEXT_EXTENSION
from schemas.reasons import DocumentDrop, ImageDrop, ImageNote, RepairNote

_PLACEHOLDER = 1.0
Notes = list[tuple[int | None, str, str]]


def mend_pair(
    members: dict[str, bytes], key: str, policy: AssemblyPolicy, row: Row | None = None
) -> PairOutcome:
    """What becomes of a sample of layout `pairs`.

    Args:
        members: their data by extension.
        key: that the sample gets.
        policy: of its picture.
        row: of the samples table, where there is one.
    """
    notes: Notes = []
    extension = next((kind for kind in members if kind in IMAGE_EXTENSIONS), None)
    listed = SourceImage("" if extension is None else f"{key}.{extension}", {})
    for kind in members:
        if kind not in (extension, TEXT_EXTENSION, "json"):
            notes.append((None, RepairNote.MEMBER_LOST.value, f"a pair has no {kind!r}"))
    try:
        if extension is None:
            got = f"only {', '.join(sorted(members))}"
            raise RecordDropped(DocumentDrop.NO_IMAGES_LISTED, f"expected a picture, got {got}")
        metadata = _metadata(members.get("json"), notes)
        caption = _caption(members.get(TEXT_EXTENSION), metadata, notes)
    except RecordDropped as dropped:
        outcome = Outcome(drop=(dropped.reason, dropped.detail))
        if extension is not None:
            outcome.dropped_images[0] = (ImageDrop.DOCUMENT_DROPPED, "")
        return PairOutcome(outcome)
    listed.fields["raw_url"] = msgspec.Raw(
        msgspec.json.encode(value_of(metadata.get("url"), str) or "")
    )
    known = _similarity(metadata)
    source = value_of(metadata.get("similarity_source"), str) or (
        "laion" if known is not None else ""
    )
    document = SourceDocument(
        text_list=[caption],
        images=[listed],
        similarity=np.array([[_PLACEHOLDER if known is None else known]], dtype=np.float64),
        similarity_source=source or "placeholder",
        alignment="given",
        extras=metadata,
        matched=[0],
    )
    draft = Draft(document, policy, [], Outcome(notes=notes))
    try:
        _check_hash(members[extension], metadata, row)
        draft.pictures.append(_picture(members[extension], draft.outcome, policy))
    except ImageRejected as rejected:
        draft.outcome.dropped_images[0] = (rejected.reason, f"{listed.name}: {rejected.detail}")
    pair = finish_pair(draft, key)
    written = _with_original_size(pair.members, metadata)
    return PairOutcome(pair.outcome, _with_own_json(written, members.get("json")))


def _metadata(raw: bytes | None, notes: Notes) -> dict[str, msgspec.Raw]:
    """The JSON of a pair; one that cannot be read is lost, and the pair goes on without."""
    if raw is None:
        return {}
    try:
        return decode_object(raw)
    except RecordDropped as dropped:
        detail = f"its JSON is lost: {dropped.reason}: {dropped.detail}"
        notes.append((None, RepairNote.MEMBER_LOST.value, detail))
        return {}


def _caption(raw: bytes | None, metadata: dict[str, msgspec.Raw], notes: Notes) -> str:
    """The text of a pair.

    Raises:
        RecordDropped: there is none that can be read.
    """
    problem = RecordDropped(DocumentDrop.NO_TEXT, "expected a text, got none")
    if raw is not None:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            got = f"byte 0x{raw[error.start]:02x} at {error.start}"
            problem = RecordDropped(DocumentDrop.NOT_UTF8, f"its text: expected UTF-8, got {got}")
        else:
            if text.strip():
                return text
    caption = value_of(metadata.get("caption"), str)
    if caption is None or not caption.strip():
        raise problem
    notes.append((None, RepairNote.CAPTION_RESTORED.value, f"{problem.detail}; from the JSON"))
    return caption


def _similarity(metadata: dict[str, msgspec.Raw]) -> float | None:
    value = value_of(metadata.get("similarity"), float)
    return value if value is not None and abs(value) <= COSINE_BOUND else None


def _check_hash(data: bytes, metadata: dict[str, msgspec.Raw], row: Row | None) -> None:
    """Refuse a picture of ours that is not what was written; others' sha256 is of the download."""
    known = [] if row is None else list(row["image_sha256"])
    if "format_version" in metadata:
        known.append(value_of(metadata.get("sha256"), str))
    if known and hashlib.sha256(data).hexdigest() not in known:
        detail = f"its bytes are not those that it was written with (sha256 {known[0]})"
        raise ImageRejected(ImageDrop.HASH_MISMATCH, detail)


def _picture(data: bytes, outcome: Outcome, policy: AssemblyPolicy) -> Picture:
    prepared = prepare_image(data, policy.images)
    outcome.notes += [(0, n.value, "") for n in prepared.notes if n != ImageNote.REENCODED]
    return Picture.of(0, prepared)


def _with_original_size(
    members: list[tuple[str, list[bytes]]], metadata: dict[str, msgspec.Raw]
) -> list[tuple[str, list[bytes]]]:
    """The original's size is what the source's JSON says: nothing here knows better."""
    names = ("original_width", "original_height")
    known = {name: metadata[name] for name in names if name in metadata}
    if not members or not known:
        return members
    *others, (extension, parts) = members
    fields: dict[str, Any] = msgspec.json.decode(b"".join(parts), type=dict[str, msgspec.Raw])
    return [*others, (extension, [msgspec.json.encode(fields | known)])]


def _with_own_json(
    members: list[tuple[str, list[bytes]]], raw: bytes | None
) -> list[tuple[str, list[bytes]]]:
    """The pair's own JSON, where what was made of it says the same."""
    if not members or raw is None:
        return members
    *others, (extension, parts) = members
    made = b"".join(parts)
    try:
        same = made != raw and msgspec.json.decode(made) == msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return members
    return [*others, (extension, [raw])] if same else members
