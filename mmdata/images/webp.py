"""WebP headers by a walk over the RIFF chunks (RFC 9649, sections 2.3 to 2.7).

RIFF states its own length, so that a cut file is known as one without decoding.
"""

import struct

from mmdata.images.exif import exif_orientation, xmp_orientation
from mmdata.images.facts import Header, truncated, unreadable
from mmdata.images.icc import is_srgb

_MAX_CHUNKS = 20_000
_ALPHA_FLAG, _ANIMATION_FLAG = 0x10, 0x02  # of VP8X


def read_header(data: bytes) -> Header:
    """Facts of a WebP file.

    Raises `ImageRejected`: `truncated` where the file is shorter than RIFF says, `unreadable` for
    malformed chunks.
    """
    if len(data) < 20:
        truncated(f"WebP cut in its header, after {len(data)} bytes")
    end = 8 + int.from_bytes(data[4:8], "little")
    end += end & 1
    if end > len(data) + (end & 1):
        truncated(f"WebP of {end} bytes, {len(data)} there")
    first = _walk(data, min(end, len(data)))
    width, height, alpha, animated = _frame(first)
    orientation = exif_orientation(first.get(b"EXIF", b""))
    if orientation is None:
        orientation = xmp_orientation(first.get(b"XMP ", b""))
    orientation = orientation or 1
    icc = first.get(b"ICCP")
    icc = None if icc is None or is_srgb(icc) else icc
    reasons = (
        (animated, "animated"),
        (alpha, "alpha"),
        (orientation != 1, f"orientation {orientation}"),
        (icc is not None, "colour profile"),
    )
    return Header(
        format="webp",
        width=width,
        height=height,
        reencode=next((why for applies, why in reasons if applies), None),
        lossless=b"VP8L" in first,
        orientation=orientation,
        icc=icc,
        multi_frame=animated,
        trailing_bytes=max(0, len(data) - end),
    )


def _walk(data: bytes, end: int) -> dict[bytes, bytes]:
    """The first chunk of each kind; image data is kept only as far as its header goes."""
    first: dict[bytes, bytes] = {}
    pos = 12
    for _ in range(_MAX_CHUNKS):
        if pos + 8 > end:
            return first
        kind = data[pos : pos + 4]
        length = int.from_bytes(data[pos + 4 : pos + 8], "little")
        start = pos + 8
        if start + length > end:
            truncated(f"WebP cut in {kind!r}: {length} bytes, {end - start} there")
        if kind == b"ANMF":
            _keep_frame(first, data[start + 16 : start + min(length, 56)])
        is_image = kind in (b"VP8 ", b"VP8L", b"ALPH")
        first.setdefault(kind, data[start : start + (min(length, 16) if is_image else length)])
        pos = start + length + (length & 1)
    unreadable(f"WebP of more than {_MAX_CHUNKS} chunks")


def _keep_frame(first: dict[bytes, bytes], chunks: bytes) -> None:
    """Whether the first frame of an animation is lossless decides what it is re-encoded to."""
    if b"ANMF" not in first:
        kind = chunks[:4]
        if kind in (b"VP8 ", b"VP8L"):
            first.setdefault(kind, chunks[8:24])


def _frame(first: dict[bytes, bytes]) -> tuple[int, int, bool, bool]:
    """(width, height, has alpha, is animated)."""
    if b"VP8X" in first:
        vp8x = first[b"VP8X"]
        if len(vp8x) < 10:
            unreadable("WebP with a short VP8X")
        width = 1 + int.from_bytes(vp8x[4:7], "little")
        height = 1 + int.from_bytes(vp8x[7:10], "little")
        alpha = bool(vp8x[0] & _ALPHA_FLAG) or b"ALPH" in first
        return width, height, alpha or _vp8l_alpha(first), bool(vp8x[0] & _ANIMATION_FLAG)
    if b"VP8L" in first:
        vp8l = first[b"VP8L"]
        if len(vp8l) < 5 or vp8l[0] != 0x2F:
            unreadable("WebP with a malformed VP8L header")
        bits = int.from_bytes(vp8l[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), _vp8l_alpha(first), False
    vp8 = first.get(b"VP8 ", b"")
    if len(vp8) < 10 or vp8[3:6] != b"\x9d\x01\x2a":
        unreadable("WebP without a key frame")
    width, height = struct.unpack_from("<HH", vp8, 6)
    if not width & 0x3FFF or not height & 0x3FFF:
        unreadable("WebP of 0 px")
    return width & 0x3FFF, height & 0x3FFF, False, False


def _vp8l_alpha(first: dict[bytes, bytes]) -> bool:
    vp8l = first.get(b"VP8L", b"")
    return len(vp8l) >= 5 and bool(vp8l[4] & 0x10)
