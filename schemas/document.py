"""The interleaved document: what one `{key}.json` member of a shard holds.

A superset of MMC4's document (https://github.com/allenai/mmc4): the images are inside as base64,
and what we add is ignored by readers that know only MMC4. Unknown fields of the input survive a
conversion, so readers tolerate them (`forbid_unknown_fields` stays off).

Two views of the same record:

* `Document`, `ImageInfo`: the contract of our own shards; the JSON Schema is generated from these.
* `ShardDocument`, `ShardImage`: what any reader of shards may rely on, ours or OpenFlamingo's.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

FORMAT_VERSION = "1"

Alignment = Literal["assigned", "given"]
ImageFormat = Literal["jpeg", "png", "webp"]

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="lower-case hexadecimal")]
Count = Annotated[int, Meta(ge=0)]
Pixels = Annotated[int, Meta(gt=0, description="pixels")]


class Window(Struct, kw_only=True, frozen=True):
    """How samples of more than 8 bits became 8: `low` and below black, `high` and above white."""

    low: float
    high: float
    by: Annotated[Literal["auto", "given"], Meta(description="percentiles of the image; the user")]


class ImageInfo(Struct, kw_only=True):
    """One image of a document of ours, and the sentence that it belongs to."""

    image_name: Annotated[str, Meta(description="name in the source; never used as a path")]
    matched_text_index: Annotated[int, Meta(ge=0, description="index into text_list")]
    matched_sim: Annotated[float, Meta(description="similarity_matrix[this image][matched]")]
    image_base64: Annotated[
        str, Meta(description="the encoded file; standard alphabet, padded, no line breaks")
    ]
    width: Pixels
    height: Pixels
    format: ImageFormat
    sha256: Annotated[Sha256, Meta(description="of the encoded file, before base64")]
    raw_url: str | UnsetType | None = UNSET
    face_detections: Any | UnsetType = UNSET
    window: Window | UnsetType = UNSET


class Document(Struct, kw_only=True):
    """One sample of an interleaved shard, as every converter of ours writes it."""

    format_version: Annotated[str, Meta(description="version of this table")]
    text_list: Annotated[list[str], Meta(min_length=1)]
    image_info: Annotated[
        list[ImageInfo], Meta(description="in the order of the sentences that they are matched to")
    ]
    similarity_matrix: Annotated[
        list[list[float]],
        Meta(description="[n_images][n_sentences], cosine similarities (not x 100), finite"),
    ]
    similarity_source: Annotated[
        str, Meta(description="mmc4, laion, placeholder or clip:<model>/<pretrained>")
    ]
    alignment: Annotated[
        Alignment, Meta(description="assigned: one-to-one optimum; given: the source's structure")
    ]
    url: str | UnsetType | None = UNSET
    could_have_url_duplicate: int | UnsetType | None = UNSET
    id: Any | UnsetType = UNSET
    roles: Annotated[
        list[str] | UnsetType, Meta(description="of conversations: who says each of text_list")
    ] = UNSET


class ShardImage(Struct):
    """One image of any interleaved shard; what others leave out is UNSET."""

    image_base64: str | UnsetType | None = UNSET
    image_name: str | UnsetType = UNSET
    raw_url: str | UnsetType | None = UNSET
    matched_text_index: int | UnsetType = UNSET
    matched_sim: float | UnsetType = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    format: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET


class ShardDocument(Struct):
    """A document of any interleaved shard: what OpenFlamingo's loader needs, and ours if there."""

    text_list: list[str]
    image_info: list[ShardImage]
    similarity_matrix: list[list[float]] | UnsetType = UNSET
    format_version: str | UnsetType = UNSET
    similarity_source: str | UnsetType = UNSET
    alignment: str | UnsetType = UNSET
    url: str | UnsetType | None = UNSET


def is_ours(document: ShardDocument) -> bool:
    """Whether a document claims our format (then all of `Document` is owed)."""
    return document.format_version is not UNSET


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `Document`."""
    return msgspec.json.schema(Document)
