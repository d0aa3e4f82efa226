"""From an encoded image to the square of pixels that the model sees.

Geometry is that of open_clip's evaluation transform: the short side is resized to S with an
antialiased bicubic filter, and the centre is cut out. Pixels stay uint8, a quarter of the bytes to
move; normalising and mirroring them run on the device (`to_input`).

Resizing is torch's, in 8-bit fixed point: 3 times as fast as Pillow's and at most 2 of 255 gray
levels away on any pixel. JPEGs whose short side is 4·S or more are decoded at a reduced scale of
2·S or more: 7 times as fast on 12 megapixels, and 0.1 (photographs) to 1.6 (line drawings) levels
away on average. `exact=True` takes Pillow for all of it, which gives open_clip's own pixels bit for
bit at half the speed.

Of images longer than 4:1 only the centre is resized (Pillow's `box`, a few pixels in a thousand
differ), so that 1 x 30,000 pixels do not become gigabytes.
"""

import io
from collections.abc import Sequence

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

#: Pixels; larger ones are refused by their header. Twice what a conversion lets through.
MAX_PIXELS = 64_000_000
_REDUCED_SIDE = 2
_FULL_RESIZE_ASPECT = 4
#: Where an image taller than this becomes smaller, Pillow 13 resizes its height first. What lies
#: between the two steps is rounded to 0-255, so that the order shows at hard edges.
_ROWS_FIRST_ASPECT = 2
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


#: RGB of (height, width, 3), maybe at a reduced scale, and (width, height) in full.
_Decoded = tuple[Image.Image | NDArray[np.uint8], tuple[int, int]]


class UndecodableError(ValueError):
    """An image that cannot be decoded, or is too large to be."""


def decode_image(data: bytes, size_px: int, *, exact: bool = False) -> Tensor:
    """Decode, resize and crop.

    Args:
        data: the encoded file.
        size_px: S, the side of the square.
        exact: open_clip's pixels bit for bit.

    Returns:
        (3, S, S) uint8, RGB.

    Raises:
        UndecodableError: it cannot be decoded, or has more than `MAX_PIXELS` pixels.
    """
    decoded = None
    if not exact and data.startswith(_JPEG_MAGIC):
        decoded = _decode_jpeg(data, size_px)
    image, full = decoded or _decode_other(data)
    # numpy copies, not torch: torch would wake its threads for it in each thread that decodes.
    square = _resize_and_crop(image, full, size_px, exact=exact)
    return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))


def to_input(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    mirrored: Tensor | None = None,
    exact: bool = False,
) -> Tensor:
    """uint8 pixels (N, 3, S, S) -> the tower's float32 (N, 3, S, S), on the device of the images.

    Args:
        images: pixels, 0 to 255.
        mean: of each channel, on the scale of 0 to 1.
        std: likewise.
        mirrored: (N,) bool on the same device: which images to mirror left and right.
        exact: the operations of torchvision's ToTensor and Normalize one by one, whose last bit
            differs.
    """
    if mirrored is not None:
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    pixels = images.to(torch.float32)
    means, deviations = (pixels.new_tensor(list(values)).view(3, 1, 1) for values in (mean, std))
    if exact:
        return pixels.div_(255).sub_(means).div_(deviations)
    return torch.addcmul(-means / deviations, pixels, 1 / (255 * deviations))


def _decode_jpeg(data: bytes, size_px: int) -> _Decoded | None:
    """None when libjpeg-turbo has a complaint: Pillow may still make sense of the file."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(width, height)
        least = _REDUCED_SIDE * size_px
        scale = {}
        if min(height, width) >= 2 * least:
            scale = {"min_height": least, "min_width": least, "min_factor": 2}
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", **scale)
    except UndecodableError:
        raise
    except _SIMPLEJPEG_ERRORS:
        return None
    return pixels, (width, height)


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


def _resize_and_crop(
    image: Image.Image | NDArray[np.uint8], full: tuple[int, int], size_px: int, *, exact: bool
) -> NDArray[np.uint8]:
    """The centre square of the image resized to a short side of S, as torchvision does both.

    Args:
        image: maybe at a reduced scale.
        full: (width, height) of the image in full, which the geometry is worked out from.
        size_px: S.
        exact: with Pillow's filter.

    Returns:
        (S, S, 3).
    """
    short, long = sorted(full)
    new_long = int(size_px * long / short)
    first = round((new_long - size_px) / 2.0)
    is_wide = full[0] >= full[1]
    left, top = (first, 0) if is_wide else (0, first)
    most = MAX_PIXELS / size_px if exact else _FULL_RESIZE_ASPECT * size_px
    if new_long > most:
        return _resize_centre(_as_image(image), first, new_long, size_px, is_wide=is_wide)
    width, height = (new_long, size_px) if is_wide else (size_px, new_long)
    if exact:
        resized = np.asarray(_as_image(image).resize((width, height), Image.Resampling.BICUBIC))
    else:
        resized = _resize(np.asarray(image), width, height)
    return resized[top : top + size_px, left : left + size_px]


def _resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if not pixels.flags.writeable:  # Pillow's; torch warns of these
        pixels = pixels.copy()
    # Channels stay last in memory, which torch's 8-bit kernel takes as it is.
    resized = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    steps = [(height, width)]
    if pixels.shape[0] > max(height, _ROWS_FIRST_ASPECT * pixels.shape[1]):
        steps.insert(0, (height, pixels.shape[1]))
    for step in steps:
        resized = F.interpolate(resized, size=step, mode="bicubic", antialias=True)
    found: NDArray[np.uint8] = resized.squeeze(0).permute(1, 2, 0).numpy()
    return found


def _resize_centre(
    image: Image.Image, first: int, new_long: int, size_px: int, *, is_wide: bool
) -> NDArray[np.uint8]:
    """The square alone, from the part of a long image that it comes from."""
    end = float(max(image.size))
    span = (first * end / new_long, min((first + size_px) * end / new_long, end))
    box = (span[0], 0, span[1], image.height) if is_wide else (0, span[0], image.width, span[1])
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box))


def _as_image(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)
