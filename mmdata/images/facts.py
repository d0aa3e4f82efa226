"""What is known of an image file, and the one exception that refuses it.

A `Header` is what a format's own reader found without decoding a pixel. It already says whether
the file may pass through, so that the common case (a plain JPEG) never meets Pillow.
"""

from typing import Literal, NoReturn

import msgspec

from schemas.reasons import ImageDrop, ImageNote

Format = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"]

_MAX_DETAIL = 200  # characters


class ImageRejected(Exception):
    """An image that stays out of its document: `reason` to count by, `detail` to read.

    `detail` is one printable ASCII line, at most 200 characters.
    """

    def __init__(self, reason: ImageDrop, detail: str) -> None:
        line = " ".join(detail.split())
        line = line.encode("ascii", "backslashreplace").decode("ascii")
        line = "".join(c if c.isprintable() else "?" for c in line)
        super().__init__(reason, line[:_MAX_DETAIL])
        self.reason = reason
        self.detail = line[:_MAX_DETAIL]

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself, before anything is decoded."""

    format: Format
    width: int
    """px, as stored (before any EXIF rotation)."""
    height: int
    """px, as stored."""
    reencode: str | None
    """Why the file cannot go into a shard as it is; None when it can."""
    lossless: bool = True
    """Whether its pixels were stored without loss, and so stay PNG when re-encoded."""
    channels: int = 3
    """Colour channels of a JPEG: 1 is gray, 4 CMYK."""
    full_chroma: bool = False
    """A JPEG without chroma subsampling, which a re-encoding keeps."""
    orientation: int = 1
    """EXIF orientation still to be applied, 1 to 8."""
    icc: bytes | None = None
    """ICC profile to be converted from; None when absent or sRGB."""
    multi_frame: bool = False
    """More than one frame or page; the first is what counts."""
    trailing_bytes: int = 0
    """Bytes behind the end of the image."""
    buffer_pixels: int = 0
    """px of the largest piece that a decoder holds at once, where that can exceed the image."""
    white_is_zero: bool = False
    """TIFF's inverted 16-bit grayscale, which Pillow hands over as stored."""
    deep: bool = False
    """Samples of 16 bits, of which Pillow keeps the upper 8 where there are several a pixel."""
    gray_alpha: bool = False
    """Two samples a pixel: gray and alpha."""
    extra: int = 2
    """What the second of them is, by TIFF's ExtraSamples: 0 nothing that is known, 1 alpha that
    the gray is multiplied by, 2 alpha."""
    low_byte_first: bool = False
    """Whether 16-bit samples stand in the file with their low byte first."""
    unpacked: bool = True
    """Samples stand in the file (or come from PNG's own decoder) without libtiff in between."""
    clear: tuple[int, ...] = ()
    """The colour, by 16-bit samples, that stands for transparency; empty for none."""
    linear: bool = False
    """Deep samples stand for light as it adds up (gamma 1.0), without a profile that says so."""
    form: str = ""
    """TIFF's samples in words, for those that have no defined range or no reader."""
    unsigned: bool = False
    """Integers of 32 bits without a sign, which Pillow hands over with one."""
    white: int = 65_535
    """The greatest sample of gray that Pillow hands over as 16 bits: TIFF's 12 are not scaled."""

    def notes(self) -> tuple[ImageNote, ...]:
        """What the header alone shows to be remarkable."""
        notes: tuple[ImageNote, ...] = ()
        if self.trailing_bytes:
            notes += (ImageNote.TRAILING_BYTES,)
        if self.multi_frame:
            notes += (ImageNote.FIRST_FRAME,)
        return notes


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a validator wants to know of an image that is in a shard."""

    format: Format
    width: int
    """px, as stored (before any EXIF rotation)."""
    height: int
    """px, as stored."""
    needs_reencode: str | None
    """Why the file is not fit for a shard as it is ("cmyk", "orientation 6"...), or None."""
    notes: tuple[ImageNote, ...]


def truncated(detail: str) -> NoReturn:
    """Refuse a file that ends early."""
    raise ImageRejected(ImageDrop.TRUNCATED, detail)


def unreadable(detail: str) -> NoReturn:
    """Refuse a file that no decoder here can or should read."""
    raise ImageRejected(ImageDrop.UNREADABLE, detail)
