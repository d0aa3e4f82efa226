"""A picture in a terminal's characters: upper half blocks, two pixels each.

The foreground is the upper pixel and the background the lower one, so that pixels are about
square. Any terminal with colours shows it; one of 16 million shows it best.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from mmdata.errors import words_of
from mmdata.images import ImagePolicy, PreparedImage, prepare_image
from mmdata.images.facts import unreadable
from mmdata.images.jpeg_decode import DECODE_ERRORS
from mmdata.images.reduced import Box, Size, decode_jpeg

_HALF_BLOCK = "▀"
#: What the rest of mmdata refuses to decode is not decoded for a look either.
_POLICY = ImagePolicy(verify="header")
_LEAST_COLUMNS = 4


def half_blocks(data: bytes, *, columns: int, rows: int) -> Text:
    """A picture that fits into so many characters, never larger than itself.

    Args:
        data: the encoded file.
        columns, rows: characters that there is room for.

    Raises:
        ImageRejected: it cannot be decoded, or is too large.
    """
    pixels = _pixels(data, max(columns, _LEAST_COLUMNS), 2 * max(rows, 1))
    text = Text(no_wrap=True, end="")
    for y in range(0, pixels.shape[0], 2):
        if y:
            text.append("\n")
        for upper, lower in zip(pixels[y], pixels[y + 1], strict=True):
            text.append(_HALF_BLOCK, _style(upper.tolist(), lower.tolist()))
    return text


def _style(upper: list[int], lower: list[int]) -> Style:
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))


def _pixels(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) pixels within the given size, of an even height."""
    prepared = prepare_image(data, _POLICY)
    full = prepared.width, prepared.height
    scale = max(full[0] / width, full[1] / height, 1.0)
    size = max(1, round(full[0] / scale)), max(1, round(full[1] / scale))
    image, box = _decoded(prepared, size)
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX, box=(0, 0, *box)))
    return np.concatenate([pixels, pixels[-1:]]) if pixels.shape[0] % 2 else pixels


def _decoded(prepared: PreparedImage, at_least: Size) -> tuple[Image.Image, Box]:
    """RGB, of a JPEG at a reduced scale, and how much of it is picture."""
    try:
        if prepared.format == "jpeg":
            full = prepared.width, prepared.height
            pixels, box = decode_jpeg(prepared.data, full, at_least, "RGB", strict=False)
            return Image.fromarray(pixels), box
        with Image.open(BytesIO(prepared.data)) as image:
            return image.convert("RGB"), image.size
    except (OSError, SyntaxError, *DECODE_ERRORS) as error:
        unreadable(words_of(error))
