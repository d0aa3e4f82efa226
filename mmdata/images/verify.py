"""Is an image sound, within the limits, and fit for a shard as it is?

Limits are checked on the header, before anything is decoded: a 44-byte GIF can ask for 4 Gpx. A
plain JPEG is verified without Pillow (under 60 us on top of libjpeg-turbo); other formats are
decoded in full, and the pixels are handed on so that a re-encoding does not decode again.
"""

from collections.abc import Callable
from functools import partial

import msgspec
from PIL import Image

from mmdata.images import avif, bmp, gif, jpeg, png, tiff, webp
from mmdata.images.facts import Header, ImageFacts, ImageRejected
from mmdata.images.jpeg_decode import require_all_scans, verify_jpeg
from mmdata.images.pillow import load
from mmdata.images.policy import ImagePolicy
from mmdata.images.reduced import Box
from mmdata.images.resize import as_asked, decode_reduced, headroom, smaller_size
from mmdata.images.sniff import sniff
from schemas.reasons import ImageDrop, ImageNote

_READERS: dict[str, Callable[[bytes], Header]] = {
    "webp": webp.read_header,
    "gif": gif.read_header,
    "bmp": bmp.read_header,
    "tiff": tiff.read_header,
    "avif": avif.read_header,
}


class Inspected(msgspec.Struct):
    """A verified image: its header, what was remarkable, and its pixels if they were decoded."""

    header: Header
    notes: tuple[ImageNote, ...]
    pixels: tuple[Image.Image, Box] | None

    def take_image(self, data: bytes, policy: ImagePolicy) -> tuple[Image.Image, Box]:
        """The pixels, decoded now if need be, and how much of them is picture.

        They are not kept here: one copy can be 128 MB.
        """
        pixels, self.pixels = self.pixels, None
        if pixels is not None:
            return pixels
        size = smaller_size(self.header.width, self.header.height, policy)
        return load(data, self.header, policy.max_pixels, headroom(size) if size else None)


def verify_image(data: bytes, policy: ImagePolicy) -> ImageFacts:
    """Facts of an image file, verified as closely as `policy.verify` says.

    Raises `ImageRejected` and nothing else, for any bytes:

    | reason | when |
    |---|---|
    | `truncated` | ends early, or is empty, or its coded data does |
    | `incomplete-scans` | a JPEG whose scans never reach full precision |
    | `unreadable` | malformed, corrupt, or of a kind that is not supported |
    | `unsupported-format` | a picture, but not JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF |
    | `not-an-image` | no picture by its first bytes |
    | `too-large`, `too-small`, `bad-aspect` | outside the limits of `policy` |
    | `jpeg-warning` | extraneous bytes before a JPEG marker, where `policy` drops these |
    """
    seen = inspect(data, policy)
    header = seen.header
    return ImageFacts(
        format=header.format,
        width=header.width,
        height=header.height,
        needs_reencode=header.reencode,
        notes=seen.notes,
    )


def inspect(data: bytes, policy: ImagePolicy) -> Inspected:
    """`verify_image`, with the decoded pixels where decoding was needed (see `Inspected`)."""
    _check_bytes(len(data), policy)
    kind = sniff(data)
    if kind == "jpeg":
        return _inspect_jpeg(data, policy)
    check = policy.verify != "header"
    read = partial(png.read_header, check=check) if kind == "png" else _READERS[kind]
    header = as_asked(read(data), policy)
    check_limits(header, policy)
    pixels = load(data, header, policy.max_pixels) if check else None
    return Inspected(header, header.notes(), pixels)


def _inspect_jpeg(data: bytes, policy: ImagePolicy) -> Inspected:
    walk = jpeg.walk(data)
    header = as_asked(walk.header, policy)
    check_limits(header, policy)
    warned = bool(walk.junk)
    size = smaller_size(header.width, header.height, policy)
    pixels = None
    # Decoding for a smaller size is as strict as the check is, so that it stands for it.
    if size and header.channels != 4 and not warned and policy.verify != "full":
        pixels = decode_reduced(data, header, size)
    # Pixels that are baked into a new file are checked first, or damage would be baked in too.
    if pixels is None and (policy.verify != "header" or header.reencode):
        warned = verify_jpeg(data, walk, full=policy.verify == "full")
    require_all_scans(walk)
    notes = header.notes()
    if warned:
        if policy.jpeg_warnings == "drop":
            raise ImageRejected(ImageDrop.JPEG_WARNING, "JPEG: extraneous bytes before a marker")
        notes = (ImageNote.JPEG_WARNING, *notes)
        if policy.verify != "header":  # junk that libjpeg skips can still keep Pillow from opening
            pixels = load(data, header, policy.max_pixels)
    return Inspected(header, notes, pixels)


def _check_bytes(num_bytes: int, policy: ImagePolicy) -> None:
    if num_bytes > policy.max_bytes:
        raise ImageRejected(ImageDrop.TOO_LARGE, f"{num_bytes} bytes, more than {policy.max_bytes}")
    if num_bytes and num_bytes < policy.min_bytes:
        raise ImageRejected(
            ImageDrop.TOO_SMALL, f"{num_bytes} bytes, fewer than {policy.min_bytes}"
        )


def check_limits(header: Header, policy: ImagePolicy) -> None:
    """Refuse what is outside the limits (`too-large`, `too-small`, `bad-aspect`)."""
    width, height = header.width, header.height
    size = f"{header.format.upper()} of {width} x {height} px"
    if max(width * height, header.buffer_pixels) > policy.max_pixels:
        detail = f"{size}, more than {policy.max_pixels} pixels"
        raise ImageRejected(ImageDrop.TOO_LARGE, detail)
    short, long = sorted((width, height))
    if short < policy.min_side:
        raise ImageRejected(ImageDrop.TOO_SMALL, f"{size}, a side under {policy.min_side} px")
    if policy.max_aspect and long > policy.max_aspect * short:
        detail = f"{size}, sides beyond {policy.max_aspect:g} to 1"
        raise ImageRejected(ImageDrop.BAD_ASPECT, detail)
