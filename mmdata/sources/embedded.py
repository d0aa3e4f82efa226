"""Images that stand in the record itself: base64, bare or in a `data:` URI.

Base64 is taken in the standard and in the URL-safe alphabet, with or without padding, blanks and
line breaks; a `data:` URI in any case, with any parameters and blanks, and percent-encoded. A text
that is nothing but base64 and begins like a picture is no name, whatever field it stands in.
"""

import binascii
import re
from urllib.parse import unquote

import pybase64

from mmdata.images import ImageRejected
from mmdata.images.sniff import sniff
from schemas.reasons import ImageDrop

#: Enough base64 to tell a format by its first bytes; a picture has no fewer than the least.
_HEAD_CHARACTERS = 64
_LEAST_CHARACTERS = 40
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+(?:=\s*){0,2}")
_STANDARD = str.maketrans("-_", "+/")
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}


def is_data_uri(text: str) -> bool:
    """Whether a text is a `data:` URI, sound or not."""
    return text[:64].lstrip()[:5].lower() == "data:"


def base64_of_uri(uri: str) -> str | None:
    """The base64 behind a `data:` URI; None where it holds none."""
    head, comma, payload = uri.partition(",")
    if not comma:
        return None
    if "%" in payload:
        payload = unquote(payload)
    words = {word.strip().lower() for word in head.partition(":")[2].split(";")}
    return payload if "base64" in words or is_bare_base64(payload) else None


def is_bare_base64(text: str) -> bool:
    """Whether a text is a picture as base64, without a `data:` before it."""
    head = _head(text)
    if len(text) < _LEAST_CHARACTERS or not _BASE64.fullmatch(head):
        return False
    try:
        data = decode_embedded(head)
        kind = sniff(data)
    except ImageRejected:
        return False
    if kind == "jpeg" and data[2:3] != b"\xff":  # two bytes of magic are too few to be sure
        return False
    return _BASE64.fullmatch(text) is not None


def decode_embedded(text: str) -> bytes:
    """The bytes behind base64.

    Raises:
        ImageRejected: `unreadable`, where it is no base64.
    """
    compact = "".join(text.split())
    if "-" in compact or "_" in compact:
        compact = compact.translate(_STANDARD)
    if len(compact) % 4 in (2, 3) and not compact.endswith("="):
        compact += "=" * (-len(compact) % 4)
    try:
        return pybase64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRejected(ImageDrop.UNREADABLE, f"base64 in the record: {error}") from None


def embedded_name(text: str, index: int) -> str:
    """A name for an image that has none: its number, and an ending by its first bytes."""
    try:
        kind = sniff(decode_embedded(_head(text)))
    except ImageRejected:  # told when the whole image is looked at
        return f"embedded-{index}"
    return f"embedded-{index}.{_EXTENSIONS.get(kind, kind)}"


def _head(text: str) -> str:
    return "".join(text[: 4 * _HEAD_CHARACTERS].split())[:_HEAD_CHARACTERS]
