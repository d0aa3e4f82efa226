"""Which format a file is, by its first bytes and never by its name.

Much of what scraped sets call `.jpg` and no decoder opens are HTML, JSON or SVG error pages; they
are told apart here, so that a report can say so.
"""

from mmdata.images.facts import Format, ImageRejected
from schemas.reasons import ImageDrop

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)

_OTHER = (
    (b"PK\x03\x04", "a zip file"),
    (b"%PDF", "a PDF file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\0\0\x01\0", "an icon file"),
)


def sniff(data: bytes) -> Format:
    """The format of `data` (magic bytes of T.81, PNG, GIF89a, TIFF 6, RIFF/WebP, BMP).

    | bytes | outcome |
    |---|---|
    | none at all | `truncated`: an interrupted download or write |
    | a proper prefix of a magic number | `truncated` |
    | HTML, JSON, SVG, text, zip, other image formats | `not-an-image` |
    """
    if not data:
        raise ImageRejected(ImageDrop.TRUNCATED, "empty file (0 bytes)")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM") and len(data) > 14 and data[14] in (12, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if _is_cut_magic(data):
        raise ImageRejected(ImageDrop.TRUNCATED, f"only {len(data)} bytes of a file header")
    raise ImageRejected(ImageDrop.NOT_AN_IMAGE, f"{_describe(data)}, {len(data)} bytes")


def _is_cut_magic(data: bytes) -> bool:
    riff = len(data) < 12 and data[:4] == b"RIFF"[: len(data)]
    bmp = len(data) <= 14 and data[:2] == b"BM"
    return riff or bmp or any(magic.startswith(data) for magic, _ in _MAGIC)


def _describe(data: bytes) -> str:
    for magic, what in _OTHER:
        if data.startswith(magic):
            return what
    if data[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "SVG"
    if start.startswith((b"<!doctype html", b"<html")) or b"<body" in start:
        return "HTML"
    if start.startswith(b"<"):
        return "XML or HTML"
    if start.startswith((b"{", b"[")):
        return "JSON"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "text"
    return "no known image format"
