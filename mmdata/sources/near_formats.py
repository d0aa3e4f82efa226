"""Formats that are not read, or by another command, told by the fields of a record.

Where none of the first records of a run can be read, a person wants to know what their data looks
like: a known format, fields whose names are nearly right, or what another command takes.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from mmdata.sources.base import RecordDropped
from mmdata.sources.laion_columns import CAPTION_NAMES, URL_NAMES
from schemas.reasons import DocumentDrop

#: Fields that formats are told by, for names that are nearly right.
_KNOWN_FIELDS = (
    *("conversations", "messages", "text_list", "image_info", "similarity_matrix"),
    *("texts", "images", "example", "image_map"),
)
_LIKENESS = 0.8
_TURNS = "write each as two turns of conversations (from, value), which convert-custom reads"


@dataclass(frozen=True, slots=True)
class NearFormat:
    """A format by its fields.

    Attributes:
        name: that people know it by.
        fields: all of them are there; with spaces between them.
        todo: what helps.
        at: how the detail of the drop begins where that matters too.
        kinds: of the conversions that this is said in; empty: in all.
    """

    name: str
    fields: str
    todo: str
    at: str = ""
    kinds: tuple[str, ...] = ()


#: In this order; the first that fits is told.
NEAR_FORMATS = (
    NearFormat(
        "The Cauldron or FineVision (texts of user and assistant), not OBELICS",
        "images texts",
        _TURNS,
        "$.texts[",
    ),
    NearFormat(
        "a document with images at places (MINT-1T, OBELICS), not a pair",
        "images texts",
        "convert-custom reads OBELICS in JSON lines or parquet; MINT-1T's tars are not read",
        kinds=("laion",),
    ),
    NearFormat(
        "MMC4's documents", "text_list image_info", "convert-mmc4 reads them", "", ("laion",)
    ),
    NearFormat(
        "conversations", "conversations", "convert-custom reads them", "", ("mmc4", "laion")
    ),
    NearFormat("messages", "messages", "convert-custom reads them", "", ("mmc4", "laion")),
    NearFormat(
        "COCO's captions (one object of images and annotations)",
        "images annotations",
        "write one record a caption, with the picture's name and a turn of conversations",
    ),
    NearFormat("Data-Juicer's intermediate format", "text images", "export it to LLaVA's format"),
    NearFormat("preference pairs", "chosen rejected", "take one of the answers as messages"),
    *(
        NearFormat(f"questions and answers ({first}, {second})", f"{first} {second}", _TURNS)
        for first, second in (
            *(("instruction", "output"), ("instruction", "response"), ("query", "response")),
            *(("question", "answer"), ("question", "answers"), ("prompt", "response")),
            *(("prompt", "completion"), ("input", "output")),
        )
    ),
)
_PICTURE_NAMES = ("image", "image_path", "file_name", "filename", "path", "img")


def near_format(kind: str, fields: Collection[str], dropped: RecordDropped) -> str:
    """What a record that was dropped for its form looks like, and what helps; empty if unknown.

    Args:
        kind: of the conversion: mmc4, custom or laion.
        fields: of the record, by name; empty where it is no object.
        dropped: why it cannot be read.
    """
    if dropped.reason == DocumentDrop.NOT_AN_OBJECT:
        return "each line is to be an object; jq -c '.[]' FILE writes those of an array"
    if dropped.reason == DocumentDrop.BAD_JSON:
        return "a record is to be one line; jq -c . FILE writes objects of several lines so"
    there = frozenset(fields)
    if len(there) == 1 and dropped.reason == DocumentDrop.UNKNOWN_FORMAT:
        (only,) = there
        return f"if the records lie under {only!r}, jq -c '.[\"{only}\"][]' FILE takes them out"
    if spelt := _nearly(there):
        return "; ".join(f"{name}: is {known} meant? rename the field" for name, known in spelt)
    for near in NEAR_FORMATS:
        fits = there.issuperset(near.fields.split()) and dropped.detail.startswith(near.at)
        if fits and (not near.kinds or kind in near.kinds):
            return f"this looks like {near.name}: {near.todo}"
    return _captions(kind, there)


def _captions(kind: str, there: frozenset[str]) -> str:
    """A hint at the command that takes pictures with one caption each; empty where none fits."""
    if not there & {*CAPTION_NAMES}:
        return ""
    if there & {*URL_NAMES} and kind != "laion":
        return "this looks like a list of URLs with captions: convert-laion reads it"
    if there & {*_PICTURE_NAMES}:
        return (
            "this looks like names of pictures with captions (BLIP, LAVIS): convert-custom reads "
            "pictures below --image-root when the caption is a turn of conversations; "
            "convert-laion reads URLs, and pictures inside parquet or tars"
        )
    return ""


def _nearly(there: frozenset[str]) -> list[tuple[str, str]]:
    """Fields whose names are nearly those that a format is told by."""
    found = []
    for known in _KNOWN_FIELDS:
        others = [name for name in there - {*_KNOWN_FIELDS} if isinstance(name, str)]
        close = difflib.get_close_matches(known, sorted(others), 1, _LIKENESS)
        if known not in there and close and not _is_plural(known, close[0]):
            found.append((close[0], known))
    return found


def _is_plural(known: str, name: str) -> bool:
    """`image` beside `images` and `text` beside `texts` are fields of their own."""
    return known.removesuffix("s") == name.removesuffix("s")
