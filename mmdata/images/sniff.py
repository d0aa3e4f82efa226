"""Which format a file is, by its first bytes and never by its name.

Much of what scraped sets call `.jpg` and no decoder opens are HTML, JSON or SVG error pages; they
are told apart here, so that a report can say so.
"""

from mmdata.images.facts import Format, ImageRejected
from mmdata.images.other_formats import describe, is_avif, other_picture
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


def sniff(data: bytes) -> Format:
    """The format of `data` (magic bytes of T.81, PNG, GIF89a, TIFF 6, RIFF/WebP, BMP, AVIF).

    | bytes | outcome |
    |---|---|
    | none at all | `truncated`: an interrupted download or write |
    | a proper prefix of a magic number | `truncated` |
    | a picture of another format (HEIC, JPEG XL, ICO...) | `unsupported-format`, with its name |
    | HTML, JSON, SVG, text, zip, video | `not-an-image` |

    Raises:
        ImageRejected: with the outcome as its reason.
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
    if is_avif(data):
        return "avif"
    if _is_cut_magic(data):
        raise ImageRejected(ImageDrop.TRUNCATED, f"only {len(data)} bytes of a file header")
    other = other_picture(data)
    if other:
        raise ImageRejected(
            ImageDrop.UNSUPPORTED_FORMAT,
            f"{other}, {len(data)} bytes: needs a decoder of its own; make it JPEG or PNG first",
        )
    raise ImageRejected(ImageDrop.NOT_AN_IMAGE, f"{describe(data)}, {len(data)} bytes")


def _is_cut_magic(data: bytes) -> bool:
    riff = len(data) < 12 and data[:4] == b"RIFF"[: len(data)]
    bmp = len(data) <= 14 and data[:2] == b"BM"
    return riff or bmp or any(magic.startswith(data) for magic, _ in _MAGIC)
