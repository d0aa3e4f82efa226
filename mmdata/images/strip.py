"""What a picture does not need to be shown, cut out of its file without encoding it anew.

EXIF, XMP, comments, text chunks, thumbnails and what lies behind the end can name people and
places; pseudonyms would be of no use beside them. Pixels, colour profile and resolution stay to the
byte. Costs a walk over the segments and one copy of the file.
"""

import re
import struct
from typing import NoReturn

from mmdata.images.facts import Format, unreadable

_SOS, _EOI, _APP0, _APP2, _APP14, _APP15, _COM = 0xDA, 0xD9, 0xE0, 0xE2, 0xEE, 0xEF, 0xFE
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_KEPT = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT",
     b"pHYs", b"cICP")
)  # fmt: skip
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"))
_WEBP_EXIF_AND_XMP = 0x08 | 0x04


def strip_metadata(data: bytes, kind: Format) -> bytes:
    """A JPEG, PNG or WebP of one frame, without what is said in it beside the picture.

    Args:
        data: an image that was verified.
        kind: its format.

    Raises:
        ImageRejected: `unreadable`: its parts cannot be told apart, so that something might stay.
    """
    strip = {"jpeg": _jpeg, "png": _png, "webp": _webp}[kind]
    try:
        return strip(data)
    except (IndexError, struct.error):
        _refuse(kind)


def _refuse(kind: str) -> NoReturn:
    unreadable(f"{kind.upper()} whose metadata cannot be told apart from the picture")


def _jpeg(data: bytes) -> bytes:
    parts, at = [data[:2]], 2
    while True:
        at = _next(_MARKER, data, at)  # past fill bytes and stray ones, as decoders do
        marker = data[at + 1]
        if marker == _EOI:
            return b"".join([*parts, data[at : at + 2]])
        if marker in _STANDALONE:
            parts.append(data[at : at + 2])
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if _is_of_picture(marker, data[at + 4 : end]):
            parts.append(data[at:end])
        at = end
        if marker == _SOS:
            behind = _next(_MARKER_IN_SCAN, data, at)
            parts.append(data[at:behind])
            at = behind


def _next(marker: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = marker.search(data, at)
    if found is None:
        _refuse("jpeg")
    return found.start()


def _is_of_picture(marker: int, payload: bytes) -> bool:
    """Whether a decoder needs a segment: all but comments and most applications' data."""
    if marker == _APP0:
        return payload.startswith(b"JFIF\0")  # JFXX is a thumbnail
    if marker == _APP2:
        return payload.startswith(b"ICC_PROFILE\0")
    if marker == _APP14:
        return payload.startswith(b"Adobe")
    return not (_APP0 < marker <= _APP15 or marker == _COM)


def _png(data: bytes) -> bytes:
    parts, at = [data[:8]], 8
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name in _PNG_KEPT:
            parts.append(data[at:end])
        if name == b"IEND":
            return b"".join(parts)
        at = end


def _webp(data: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", data, 4)
    parts, at = [], 12
    while at < min(size + 8, len(data)):
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        if name == b"VP8X":
            flags = data[at + 8] & ~_WEBP_EXIF_AND_XMP
            parts.append(data[at : at + 8] + bytes([flags]) + data[at + 9 : end])
        elif name in _WEBP_KEPT:
            parts.append(data[at:end])
        at = end
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
