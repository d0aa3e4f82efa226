"""PNG headers by a walk over the chunks (PNG, third edition, sections 5 and 11).

Pillow skips the CRCs of IDAT and stops at the first of them; this walk checks every chunk to IEND
(zlib's CRC-32, 1 to 3 GB/s), so that a cut or flipped byte is named with its chunk.
"""

import struct
import zlib

import msgspec

from mmdata.images.exif import exif_orientation, raw_profile_orientation, xmp_orientation
from mmdata.images.facts import Header, truncated, unreadable
from mmdata.images.icc import is_srgb

_SIGNATURE_BYTES = 8
_MAX_CHUNKS = 200_000  # the most that 64 MiB of sane IDATs need is a tenth of it
_MAX_METADATA_BYTES = 2**20  # of a decompressed profile or XMP packet
_KEPT = (b"IHDR", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"sRGB", b"gAMA", b"cICP")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"xml:com.adobe.xmp"
#: Keywords of texts that can say how a picture is to be turned, in lower case.
_RAW_PROFILES = (b"raw profile type exif", b"raw profile type app1", b"raw profile type xmp")
_LINEAR_GAMMA = range(98_000, 102_001)  # gAMA of 1.0, times 100,000
_LINEAR_TRANSFER = 8  # cICP (H.273)
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_DEPTHS = {
    _GRAY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GRAY_ALPHA: (8, 16),
    _RGBA: (8, 16),
}


class _Chunks(msgspec.Struct):
    """The first chunk of each kind that matters, and where the file ends."""

    first: dict[bytes, bytes]
    end: int


def read_header(data: bytes, *, check: bool) -> Header:
    """Facts of a PNG file; `check` verifies the CRC of every chunk.

    Raises `ImageRejected`: `truncated` where a chunk or IEND is cut off, `unreadable` for a bad
    CRC or an impossible IHDR.
    """
    chunks = _walk(data, check=check)
    ihdr = chunks.first.get(b"IHDR", b"")
    if len(ihdr) < 13:
        unreadable("PNG with a short IHDR")
    width, height, depth, colour = struct.unpack_from(">IIBB", ihdr)
    if not width or not height or depth not in _DEPTHS.get(colour, ()):
        unreadable(f"PNG of {width} x {height} px, {depth} bits, colour type {colour}")
    orientation = _orientation(chunks.first)
    icc = _icc(chunks.first.get(b"iCCP", b""))
    deep = depth == 16
    return Header(
        format="png",
        width=width,
        height=height,
        reencode=_why_reencode(chunks.first, depth, colour, orientation, icc),
        orientation=orientation,
        icc=icc,
        multi_frame=b"acTL" in chunks.first,
        trailing_bytes=len(data) - chunks.end,
        deep=deep,
        gray_alpha=colour == _GRAY_ALPHA,
        clear=_clear(chunks.first.get(b"tRNS", b"")) if deep and colour == _RGB else (),
        linear=deep and _is_linear(chunks.first),
    )


def _walk(data: bytes, *, check: bool) -> _Chunks:
    first: dict[bytes, bytes] = {}
    pos = _SIGNATURE_BYTES
    view = memoryview(data)
    for _ in range(_MAX_CHUNKS):
        if pos + 8 > len(data):
            truncated(f"PNG cut between chunks, after {len(data)} bytes")
        length, kind = struct.unpack_from(">I4s", data, pos)
        name = kind.decode("ascii", "replace")
        end = pos + 12 + length
        if not kind.isalpha() or (not first and kind != b"IHDR"):
            unreadable(f"PNG with {kind!r} where a chunk should begin")
        if end > len(data):
            truncated(f"PNG cut in {name}: {length} bytes, {max(0, len(data) - pos - 8)} there")
        if check and zlib.crc32(view[pos + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            unreadable(f"PNG with a wrong CRC in {name} at byte {pos}")
        if kind in _KEPT:
            first.setdefault(kind, data[pos + 8 : end - 4])
        elif kind in _TEXTS:
            _keep_text(first, kind, data[pos + 8 : end - 4])
        if kind == b"IEND":
            return _Chunks(first, end)
        pos = end
    unreadable(f"PNG of more than {_MAX_CHUNKS} chunks")


def _keep_text(first: dict[bytes, bytes], kind: bytes, payload: bytes) -> None:
    """The text of a keyword that matters, under the keyword."""
    keyword = payload[:80].partition(b"\0")[0].lower()
    if keyword in (_XMP, *_RAW_PROFILES) and keyword not in first:
        first[keyword] = _text(kind, payload)


def _why_reencode(
    chunks: dict[bytes, bytes], depth: int, colour: int, orientation: int, icc: bytes | None
) -> str | None:
    reasons = (
        (colour == _PALETTE, "palette"),
        (colour in (_GRAY_ALPHA, _RGBA) or b"tRNS" in chunks, "alpha"),
        (depth != 8, f"{depth}-bit"),
        (orientation != 1, f"orientation {orientation}"),
        (icc is not None, "colour profile"),
        (b"acTL" in chunks, "animated"),
    )
    return next((why for applies, why in reasons if applies), None)


def _orientation(chunks: dict[bytes, bytes]) -> int:
    """EXIF orientation, 1 to 8: from the chunk for EXIF, else EXIF in a text, else XMP."""
    found = exif_orientation(chunks.get(b"eXIf", b""))
    for keyword in _RAW_PROFILES:
        found = found or raw_profile_orientation(chunks.get(keyword, b""))
    return found or xmp_orientation(chunks.get(_XMP, b"")) or 1


def _text(kind: bytes, payload: bytes) -> bytes:
    """What a text says.

    tEXt: keyword NUL text. zTXt: keyword NUL method text. iTXt: keyword NUL compressed method
    language NUL keyword NUL text.
    """
    _, _, rest = payload.partition(b"\0")
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflate(rest[1:])
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return _inflate(text) if rest[:1] == b"\1" else text


def _clear(payload: bytes) -> tuple[int, ...]:
    return struct.unpack_from(">3H", payload) if len(payload) >= 6 else ()


def _is_linear(chunks: dict[bytes, bytes]) -> bool:
    """Whether samples are linear light by what counts first of cICP, iCCP, sRGB and gAMA."""
    if b"cICP" in chunks:
        return chunks[b"cICP"][1:2] == bytes([_LINEAR_TRANSFER])
    if b"iCCP" in chunks or b"sRGB" in chunks:
        return False
    return int.from_bytes(chunks.get(b"gAMA", b"")[:4]) in _LINEAR_GAMMA


def _icc(payload: bytes) -> bytes | None:
    """The profile of an iCCP chunk (name NUL method data) unless broken, huge or sRGB."""
    _, _, rest = payload.partition(b"\0")
    profile = _inflate(rest[1:])
    return profile if profile and not is_srgb(profile) else None


def _inflate(data: bytes) -> bytes:
    """Decompressed bytes, or none when broken or over 1 MiB: a bomb costs no more than that."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, _MAX_METADATA_BYTES)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else out
