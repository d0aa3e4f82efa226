"""Whether an image is to become smaller or of another format, and making it smaller.

A JPEG is decoded at the smallest of libjpeg's scales (k/8) that leaves 1.25 times the wanted size,
then resized once, with LANCZOS. Against decoding all of a 12-megapixel photograph and LANCZOS that
is 7 to 8 times as fast (2.7 if progressive). How near it comes to that, in dB, from 71 pictures of
0.03 to 12 megapixels (as JPEG of quality 92 where they were none) made 100, 200, 256 and 336 px:
49 in the median for photographs, 38 or more for 19 of 20, 34 at worst; 40 in the median for
drawings and pages of text, 27 at worst; 24 for a checkerboard of 7 px. The decoding is strict, so
it is the check of the whole file too.
"""

import msgspec
import numpy as np
from PIL import Image

from mmdata.images.facts import Header
from mmdata.images.jpeg_decode import DECODE_ERRORS
from mmdata.images.policy import ImagePolicy
from mmdata.images.reduced import Box, Size, decode_jpeg

#: A reduced JPEG is at least this many times as large as what it is resized to.
_HEADROOM = 1.25
#: Pillow halves by boxes down to three times the size before it filters: 55 dB, 3.7 x the speed.
_REDUCING_GAP = 3.0
MAX_WEBP_SIDE = 16_383  # px
MAX_JPEG_SIDE = 65_500  # px; libjpeg's own limit, a little under T.81's 65,535


def smaller_size(width: int, height: int, policy: ImagePolicy) -> Size | None:
    """(width, height) that an image is to be resized to; None where it is small enough."""
    side = (min if policy.resize_mode == "shortest" else max)(width, height)
    limit = policy.max_side
    if not limit or side <= limit:
        return None
    return max(1, (width * limit + side // 2) // side), max(1, (height * limit + side // 2) // side)


def as_asked(header: Header, policy: ImagePolicy) -> Header:
    """The header, with why the image cannot stay as it is by the policy's size and format."""
    if header.reencode is not None:
        return header
    why = None
    if smaller_size(header.width, header.height, policy):
        why = f"larger than {policy.max_side} px"
    elif policy.image_format not in ("keep", header.format) and _fits(header, policy):
        why = f"not {policy.image_format}"
    return header if why is None else msgspec.structs.replace(header, reencode=why)


def _fits(header: Header, policy: ImagePolicy) -> bool:
    """Whether the format that is asked for has room for the image."""
    most = MAX_WEBP_SIDE if policy.image_format == "webp" else MAX_JPEG_SIDE
    return max(header.width, header.height) <= most


def shrink(image: Image.Image, size: Size | None, box: Box) -> Image.Image:
    """The image in (at most) a size.

    Args:
        image: maybe decoded at a reduced scale.
        size: (width, height), px; None for as it is.
        box: how much of it is picture.
    """
    if size is None or image.size == size == box:
        return image
    filtered = Image.Resampling.LANCZOS
    return image.resize(size, filtered, box=(0, 0, *box), reducing_gap=_REDUCING_GAP)


def headroom(size: Size) -> Size:
    """What a decoder that can reduce must still give for `shrink` to come out well."""
    return int(size[0] * _HEADROOM), int(size[1] * _HEADROOM)


def decode_reduced(data: bytes, header: Header, size: Size) -> tuple[Image.Image, Box] | None:
    """A gray or RGB JPEG, decoded strictly at the smallest scale that will do for `size`.

    None where libjpeg has anything to complain about: `verify_jpeg` then says what it is.
    """
    colours = "GRAY" if header.channels == 1 else "RGB"
    full = header.width, header.height
    try:
        pixels, box = decode_jpeg(data, full, headroom(size), colours, strict=True)
    except DECODE_ERRORS:
        return None
    return Image.fromarray(np.squeeze(pixels, axis=2) if pixels.shape[2] == 1 else pixels), box
