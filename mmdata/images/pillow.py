"""The one place where Pillow reads a file, and where its errors become `ImageRejected`.

Pillow keeps its pixel limit and Python its warning filters in globals; both are set around a call
and put back. That takes a lock, so threads of one process decode with Pillow one at a time:
conversions run in processes, and plain JPEGs never come here.
"""

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from typing import Any

# Plugins register themselves on import; Image.open would otherwise import every one there is.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,
)

from mmdata.errors import words_of
from mmdata.images.facts import Header, ImageRejected, truncated, unreadable
from mmdata.images.pillow_tiff import in_native_order, more_forms
from mmdata.images.reduced import HALVINGS, Box, Size, cover, scale_of
from schemas.reasons import ImageDrop

# Pillow documents OSError, ValueError, SyntaxError and DecompressionBombError. Its plugins parse
# hostile bytes with plain Python, struct and zlib, and let through what those raise: hence the
# rest. Left out on purpose: ImportError and NameError, which would be our own mistakes.
PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_LOCK = threading.RLock()


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: libtiff prints its complaints there, past Python."""
    try:
        kept = os.dup(2)
    except OSError:  # closed already
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


@contextmanager
def pillow_errors(name: str, max_pixels: int) -> Iterator[None]:
    """Run Pillow quietly and under a pixel limit; what it raises becomes `ImageRejected`.

    `truncated` when Pillow says so, `too-large` beyond twice the limit (where a file holds more
    than its header told), else `unreadable`. Begun with the name of the format.
    """
    quiet = _silent_libtiff() if name == "TIFF" else nullcontext()
    with _LOCK, warnings.catch_warnings(), quiet:
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        except Image.DecompressionBombError as error:
            raise ImageRejected(ImageDrop.TOO_LARGE, f"{name}: {words_of(error)}") from error
        except PILLOW_ERRORS as error:
            detail = f"{name}: {words_of(error)}"
            if "truncated" in detail.lower():
                truncated(detail)
            unreadable(detail)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def load(
    data: bytes,
    header: Header,
    max_pixels: int,
    at_least: Size | None = None,
    *,
    raw_mode: str | None = None,
    low_bytes: bool = False,
) -> tuple[Image.Image, Box]:
    """Decode the first frame of a file whose `header` was read and found within the limits.

    With `at_least` a JPEG is decoded at the smallest scale that is not smaller. The box says how
    much of the image is picture. `raw_mode` is what Pillow takes the samples for in place of what
    they are; `low_bytes` takes the lower bytes of samples of 16 bits for the upper ones.

    Raises `ImageRejected` (`truncated`, `unreadable`, `too-large`). A TIFF comes back with its
    orientation applied, as Pillow does by itself.
    """
    name = header.format.upper()
    with pillow_errors(name, max_pixels), more_forms() if name == "TIFF" else nullcontext():
        try:
            image = Image.open(BytesIO(data), formats=(name,))
        except UnidentifiedImageError:
            unreadable(f"{name} of {header.form or 'a form'} that Pillow does not read")
        _check_size(image.size, header)
        in_native_order(image)
        if raw_mode or low_bytes:
            _take_as(image, raw_mode)
        scale = None
        if at_least is not None and header.format == "jpeg":
            scale = scale_of(image.size, at_least, HALVINGS)
            # Rounded down: Pillow halves while the result is not smaller than what it is given.
            image.draft(None, (int(scale.box[0]), int(scale.box[1])))
        if isinstance(image, WebPImagePlugin.WebPImageFile):
            image._decoder = _FirstFrame(image._decoder)
        image.load()
        if scale is None:
            return image, image.size
        _check_reduced(image.size, scale.size)
        cover(image, scale)
        return image, scale.box


def _take_as(image: Image.Image, raw_mode: str | None) -> None:
    """Have samples unpacked as another raw mode, or with their two bytes exchanged."""
    assert isinstance(image, ImageFile.ImageFile)  # noqa: S101 - as opened
    tiles = []
    for tile in image.tile:
        one, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        other = raw_mode or (one[:-1] + "L" if one.endswith(";16B") else one[:-1] + "B")
        tiles.append(tile._replace(args=(other, *rest) if rest else other))
    image.tile = tiles


class _FirstFrame:
    """Pillow's WebP decoder, let go as it hands out its first frame.

    It holds two canvases (8 bytes a px), for animations and all other files alike. Pillow would
    keep them while the frame becomes an image, and as long as the image lives.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def get_next(self) -> Any:
        """(pixels, time in ms) of the first frame; raises OSError where it cannot be decoded."""
        decoder, self._decoder = self._decoder, None
        return decoder.get_next()


def _check_reduced(size: Size, expected: Size) -> None:
    if size != expected:
        raise RuntimeError(f"decoded at {size[0]} x {size[1]} px for {expected[0]} x {expected[1]}")


def _check_size(size: tuple[int, int], header: Header) -> None:
    """What Pillow is about to allocate is what the limits were checked against."""
    if sorted(size) != sorted((header.width, header.height)):
        unreadable(
            f"{header.format.upper()} of {size[0]} x {size[1]} px"
            f" whose header says {header.width} x {header.height}"
        )
