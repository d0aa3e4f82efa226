"""A checked document as the bytes of its sample, and as a row of the samples table.

The member stays in parts until it is written: a document of the greatest size (256 MiB of images)
needs 1.4 times that in memory, not four times.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pybase64

from mmdata.alignment import Similarity
from mmdata.images import PreparedImage
from mmdata.shards.columns import text_columns
from mmdata.sources.base import SourceDocument
from schemas.document import FORMAT_VERSION, Window

#: What a sample's JSON says of itself; a source's fields of these names give way to ours.
_OWN_FIELDS = frozenset({"format_version", "similarity_source", "alignment", "roles"})
_OWN_IMAGE_FIELDS = frozenset({"image_base64", "width", "height", "format", "sha256", "window"})


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that passed: `index` of its document's, `base64` as it goes into the sample."""

    index: int
    base64: bytes
    num_bytes: int
    width: int
    height: int
    format: str
    sha256: str
    reencoded: bool
    window: Window | None = None

    @classmethod
    def of(cls, index: int, prepared: PreparedImage, *, window: Window | None = None) -> "Picture":
        """A prepared image; `window` is what the source says of one that came in 8 bits."""
        return cls(
            index,
            pybase64.b64encode(prepared.data),
            len(prepared.data),
            prepared.width,
            prepared.height,
            prepared.format,
            hashlib.sha256(prepared.data).hexdigest(),
            prepared.reencoded,
            prepared.window or window,
        )


def encode_member(
    document: SourceDocument,
    pictures: list[Picture],
    matched: list[int],
    similarity: Similarity,
    similarity_source: str,
) -> list[bytes]:
    """The sample's JSON: known fields in a fixed order, then the source's others as they came."""
    encode = msgspec.json.encode
    head = encode({"format_version": FORMAT_VERSION, "text_list": document.text_list})
    # Few and large parts: each is hashed and written by itself.
    parts = []
    opening = head[:-1] + b',"image_info":['
    for row, (picture, sentence) in enumerate(zip(pictures, matched, strict=True)):
        source = document.images[picture.index]
        fields: dict[str, Any] = {"image_name": source.name}
        fields |= {k: v for k, v in source.fields.items() if k not in _OWN_IMAGE_FIELDS}
        fields["matched_text_index"] = sentence
        fields["matched_sim"] = float(similarity[row, sentence])
        fields["width"], fields["height"] = picture.width, picture.height
        fields["format"], fields["sha256"] = picture.format, picture.sha256
        if picture.window is not None:
            fields["window"] = picture.window
        parts += [opening + encode(fields)[:-1] + b',"image_base64":"', picture.base64]
        opening = b'"},'
    tail: dict[str, Any] = {
        "similarity_matrix": similarity.tolist(),
        "similarity_source": similarity_source,
        "alignment": document.alignment,
    }
    if document.roles is not None:
        tail["roles"] = document.roles
    tail |= {k: v for k, v in document.extras.items() if k not in _OWN_FIELDS}
    closing = b'"}],' if pictures else opening + b"],"
    return [*parts, closing + encode(tail)[1:]]


def samples_row(
    document: SourceDocument,
    pictures: list[Picture],
    matched: list[int],
    similarity: Similarity,
    parts: list[bytes],
) -> dict[str, Any]:
    """The samples table's row, but for key, offset and provenance."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    scores = similarity[np.arange(len(matched)), matched].tolist() if matched else []
    return {
        "size": sum(map(len, parts)),
        "sha256": digest.hexdigest(),
        **text_columns([text.encode("utf-8") for text in document.text_list]),
        "matched": matched,
        "similarity": scores,
        "margin": _margins(similarity, matched, scores),
        **picture_columns(pictures),
    }


def picture_columns(pictures: Sequence[Picture]) -> dict[str, list[Any]]:
    """What the samples table says of a sample's images."""
    return {
        "image_bytes": [picture.num_bytes for picture in pictures],
        "width": [picture.width for picture in pictures],
        "height": [picture.height for picture in pictures],
        "format": [picture.format for picture in pictures],
        "image_sha256": [picture.sha256 for picture in pictures],
        "reencoded": [picture.reencoded for picture in pictures],
    }


def _margins(similarity: Similarity, matched: list[int], scores: list[float]) -> list[float | None]:
    """How much better each image's sentence is than its best other one; None without another."""
    if similarity.shape[1] < 2:
        return [None] * len(matched)
    others = similarity.copy()
    others[np.arange(len(matched)), matched] = -np.inf
    best = others.max(axis=1).tolist() if matched else []
    return [score - other for score, other in zip(scores, best, strict=True)]
