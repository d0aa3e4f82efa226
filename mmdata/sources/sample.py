"""Samples of our own interleaved shards, taken apart again: for tools that write them anew.

The fields that a sample's JSON gets from us are computed anew or known from its row of the
samples table; all others are carried along as raw JSON, so that nothing of the source is lost.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from mmdata.errors import BadInputError
from mmdata.sources.base import SourceDocument, SourceImage
from schemas.document import Document, Window

_IMAGES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TYPED = msgspec.json.Decoder(Document)
_COMPUTED = (
    *("image_name", "matched_text_index", "matched_sim", "width", "height", "format", "window"),
)


@dataclass(frozen=True, slots=True)
class ParsedSample:
    """A sample as a document, and its images.

    Attributes:
        document: without similarities; with `matched` where the alignment is given.
        base64: of each image.
        windows: of each image that was scaled to 8 bits by one.
    """

    document: SourceDocument
    base64: list[bytes]
    windows: list[Window | None]


def parse_sample(member: bytes, where: str) -> ParsedSample:
    """Take a `{key}.json` member apart.

    Args:
        member: its bytes.
        where: shard and key, for the message.

    Raises:
        BadInputError: it is not a sample of ours.
    """
    try:
        typed = _TYPED.decode(member)
        fields = _FIELDS.decode(member)
        infos = _IMAGES.decode(fields.pop("image_info"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInputError(f"{where}: not a sample of ours: {error}; mmdata validate") from error
    base64 = [image.image_base64.encode() for image in typed.image_info]
    for known in ("text_list", "similarity_matrix", "format_version", "roles"):
        fields.pop(known, None)
    given = typed.alignment == "given"
    matched = [image.matched_text_index for image in typed.image_info]
    if any(index >= len(typed.text_list) for index in matched):
        raise BadInputError(f"{where}: matched_text_index out of range; mmdata validate")
    document = SourceDocument(
        text_list=typed.text_list,
        images=[_image(info) for info in infos],
        similarity=None,
        similarity_source=typed.similarity_source,
        alignment=typed.alignment,
        extras=fields,
        matched=matched if given else None,
        roles=typed.roles if isinstance(typed.roles, list) else None,
    )
    windows = [
        image.window if isinstance(image.window, Window) else None for image in typed.image_info
    ]
    return ParsedSample(document, base64, windows)


def _image(info: dict[str, msgspec.Raw]) -> SourceImage:
    """The source's fields of an image, in their order."""
    name: Any = msgspec.json.decode(info["image_name"])
    return SourceImage(name, {k: v for k, v in info.items() if k not in _COMPUTED})
