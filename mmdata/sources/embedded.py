"""Images that stand in the record itself: base64, bare or in a `data:` URI."""

import binascii
import re

import pybase64

from mmdata.images import ImageRejected
from mmdata.images.sniff import sniff
from schemas.reasons import ImageDrop

_DATA_URI = re.compile(
    r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE
)
#: Enough base64 to tell a format by its first bytes.
_HEAD_CHARACTERS = 64
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}


def is_data_uri(text: str) -> bool:
    """Whether a text is a `data:` URI, sound or not."""
    return text[:5].lower() == "data:"


def base64_of_uri(uri: str) -> str | None:
    """The base64 behind a `data:` URI; None where it holds none."""
    match = _DATA_URI.match(uri)
    return uri[match.end() :] if match and match[3] else None


def decode_embedded(text: str) -> bytes:
    """The bytes behind base64: standard alphabet, padded, line breaks allowed.

    Raises:
        ImageRejected: `unreadable`, where it is no base64.
    """
    try:
        return pybase64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRejected(ImageDrop.UNREADABLE, f"base64 in the record: {error}") from None


def embedded_name(text: str, index: int) -> str:
    """A name for an image that has none: its number, and an ending by its first bytes."""
    try:
        kind = sniff(decode_embedded(text[:_HEAD_CHARACTERS]))
    except ImageRejected:  # told when the whole image is looked at
        return f"embedded-{index}"
    return f"embedded-{index}.{_EXTENSIONS.get(kind, kind)}"
