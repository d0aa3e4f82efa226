"""From an encoded image to the square of pixels that the model sees.

Geometry is that of open_clip's evaluation transform: the short side is resized to S with Pillow's
bicubic filter, and the centre is cut out. Of images longer than 4:1 only the centre is resized
(Pillow's `box`, a few pixels in a thousand differ), so that 1 x 30,000 pixels do not become
gigabytes. Pixels stay uint8, a quarter of the bytes to move; `normalise` runs on the device.
JPEGs whose short side is 4·S or more are decoded at a reduced scale of 2·S or more: 7 times as
fast on 12 megapixels, and 0.1 (photographs) to 1.6 (line drawings) of 255 gray levels away on
average. All others are decoded in full and equal to OpenFlamingo's.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

#: Pixels; larger ones are refused by their header. Twice what a conversion lets through.
MAX_PIXELS = 64_000_000
_REDUCED_SIDE = 2
_FULL_RESIZE_ASPECT = 4
_JPEG_MAGIC = b"\xff\xd8\xff"
# simplejpeg turns every complaint into ValueError; the others are its buffer errors.
_SIMPLEJPEG_ERRORS = (ValueError, TypeError, OverflowError, MemoryError, RuntimeError)
# What Pillow raises on hostile files, besides OSError and its own DecompressionBombError.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


#: RGB, maybe at a reduced scale, and (width, height) in full.
_Decoded = tuple[Image.Image, tuple[int, int]]


class UndecodableError(ValueError):
    """An image that cannot be decoded, or is too large to be."""


def decode_image(data: bytes, size_px: int, *, flip: bool = False) -> Tensor:
    """Decode, resize and crop.

    Args:
        data: the encoded file.
        size_px: S, the side of the square.
        flip: mirror left and right.

    Returns:
        (3, S, S) uint8, RGB.

    Raises:
        UndecodableError: it cannot be decoded, or has more than `MAX_PIXELS` pixels.
    """
    decoded = _decode_jpeg(data, size_px) if data.startswith(_JPEG_MAGIC) else None
    image, full = decoded or _decode_other(data)
    square = np.asarray(_resize_and_crop(image, full, size_px))
    if flip:
        square = square[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))


def normalise(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(N, 3, S, S) uint8 -> (N, 3, S, S) `dtype`, on the device of the images.

    Args:
        images: pixels, 0 to 255.
        mean: of each channel, on the scale of 0 to 1.
        std: likewise.
        dtype: of the result; the arithmetic is in float32.
    """
    scale = images.new_tensor([1 / (255 * value) for value in std], dtype=torch.float32)
    shift = images.new_tensor(
        [-first / second for first, second in zip(mean, std, strict=True)], dtype=torch.float32
    )
    pixels = images.to(torch.float32)
    return torch.addcmul(shift.view(3, 1, 1), pixels, scale.view(3, 1, 1)).to(dtype)


def _decode_jpeg(data: bytes, size_px: int) -> _Decoded | None:
    """None when libjpeg-turbo has a complaint: Pillow may still make sense of the file."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(width, height)
        least = _REDUCED_SIDE * size_px
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(
            data, "RGB", min_height=least, min_width=least, min_factor=2
        )
    except UndecodableError:
        raise
    except _SIMPLEJPEG_ERRORS:
        return None
    return Image.fromarray(pixels), (width, height)


def _decode_other(data: bytes) -> _Decoded:
    """The first frame of whatever it is."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_pixels(*image.size)
            return image.convert("RGB"), image.size
    except _PILLOW_ERRORS as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UndecodableError(f"{width} x {height} pixels: expected at most {MAX_PIXELS}")


def _resize_and_crop(image: Image.Image, full: tuple[int, int], size_px: int) -> Image.Image:
    """The centre square of the image resized to a short side of S, as torchvision does both.

    Args:
        image: maybe at a reduced scale.
        full: (width, height) of the image in full, which the geometry is worked out from.
        size_px: S.
    """
    short, long = sorted(full)
    new_long = int(size_px * long / short)
    first = round((new_long - size_px) / 2.0)
    is_wide = full[0] >= full[1]
    if long <= _FULL_RESIZE_ASPECT * short:
        size = (new_long, size_px) if is_wide else (size_px, new_long)
        left, top = (first, 0) if is_wide else (0, first)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        return resized.crop((left, top, left + size_px, top + size_px))
    end = float(max(image.size))
    span = (first * end / new_long, min((first + size_px) * end / new_long, end))
    box = (span[0], 0, span[1], image.height) if is_wide else (0, span[0], image.width, span[1])
    return image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)
