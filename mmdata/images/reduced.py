"""JPEGs decoded at one of libjpeg's scales (k/8), and how much of the result is picture.

A picture whose side is no multiple of 8 ends inside a block, and at k/8 also inside a pixel: 2017
px at 2/8 are 504.25, decoded as 505. What fills the rest of the last block is whatever the encoder
put there (black, with some). So the picture is a box with a fractional end in what was decoded:
who resizes all of it draws the padding in and shifts everything by up to a pixel. The box is for
the resizing to begin from; the last column and row, where the box ends inside them, hold what
stands beside them instead of a blend with the padding.

Everything that decodes at a reduced scale does it here, or by Pillow with `scale_of` and `cover`.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

_BLOCK = 8
#: Scales of libjpeg-turbo, in eighths, and those that Pillow's draft mode chooses from.
EIGHTHS = (1, 2, 3, 4, 5, 6, 7)
HALVINGS = (1, 2, 4)

Size = tuple[int, int]
#: (width, height) of the picture in what was decoded, from its upper left corner.
Box = tuple[float, float]


class Scale(msgspec.Struct, frozen=True):
    """How a JPEG is decoded: pixels as they come, and the box of the picture in them."""

    eighths: int
    """8 is the full scale."""
    size: Size
    box: Box


def scale_of(full: Size, at_least: Size, eighths: Sequence[int] = EIGHTHS) -> Scale:
    """The smallest scale that leaves at least so many pixels, of which one is whole each way.

    Args:
        full: (width, height) of the file, px.
        at_least: (width, height) to be left, px; the full scale where the file has fewer.
        eighths: scales to choose from, ascending.
    """
    width, height = full
    # Below 8 px two scales can give one size, by which the codec is asked for them.
    for k in eighths if max(full) >= _BLOCK else ():
        size = -(-width * k // _BLOCK), -(-height * k // _BLOCK)
        is_enough = size[0] >= at_least[0] and size[1] >= at_least[1]
        if is_enough and min(full) * k >= _BLOCK:
            return Scale(k, size, (width * k / _BLOCK, height * k / _BLOCK))
    return Scale(_BLOCK, full, full)


def decode_jpeg(
    data: bytes, full: Size, at_least: Size, colours: str, *, strict: bool
) -> tuple[NDArray[np.uint8], Box]:
    """Decode at the smallest scale that will do.

    Args:
        data: the file.
        full: (width, height) as its header says, px.
        at_least: (width, height) to be left, px.
        colours: `RGB` or `GRAY`.
        strict: whether a warning of libjpeg-turbo is an error.

    Returns:
        (height, width, channels), and the box of the picture in it.

    Raises:
        ValueError, or another of `jpeg_decode.DECODE_ERRORS`: libjpeg-turbo has a complaint.
    """
    scale = scale_of(full, at_least)
    smallest = {}
    if scale.eighths < _BLOCK:
        smallest = {"min_width": scale.size[0], "min_height": scale.size[1]}
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=strict, **smallest)
    if pixels.shape[1::-1] != scale.size:
        raise ValueError(f"{full[0]} x {full[1]} px decoded as {pixels.shape[1]}x{pixels.shape[0]}")
    right, below = _ends_inside(scale)
    if right:
        pixels[:, -1] = pixels[:, -2]
    if below:
        pixels[-1] = pixels[-2]
    return pixels, scale.box


def cover(image: Image.Image, scale: Scale) -> None:
    """Put what stands beside them over the last column and row, where the picture ends in them."""
    width, height = image.size
    right, below = _ends_inside(scale)
    if right:
        image.paste(image.crop((width - 2, 0, width - 1, height)), (width - 1, 0))
    if below:
        image.paste(image.crop((0, height - 2, width, height - 1)), (0, height - 1))


def _ends_inside(scale: Scale) -> tuple[bool, bool]:
    """Whether the picture ends inside the last column, and the last row."""
    return scale.box[0] < scale.size[0], scale.box[1] < scale.size[1]
