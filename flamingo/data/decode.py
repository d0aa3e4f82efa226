"""From an encoded image to the square of pixels that the model sees.

Geometry is that of open_clip's evaluation transform: the short side is resized to S with an
antialiased bicubic filter, and the centre is cut out. Pixels stay uint8, a quarter of the bytes to
move; normalising and mirroring them run on the device (`to_input`).

Resizing is torch's, in 8-bit fixed point: 3 times as fast as Pillow's and at most 2 of 255 gray
levels away on any pixel. JPEGs whose short side is 4·S or more are decoded at a reduced scale of
2·S or more: 7 times as fast on 12 megapixels, and on average 0.4 levels away over photographs (1.4
at most) and 0.7 over line drawings (2.2 at most). `exact=True` takes Pillow for all of it, which
gives open_clip's own pixels bit for bit at half the speed.

Of images longer than 4:1 only the centre is resized (Pillow's `box`, a few pixels in a thousand
differ), so that 1 x 30,000 pixels do not become gigabytes.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from flamingo.modules.placement import to_device
from mmdata.images.reduced import Box, decode_jpeg

#: Pixels; larger ones are refused by their header. Twice what a conversion lets through.
MAX_PIXELS = 64_000_000
_REDUCED_SIDE = 2
_A_HAIR_MORE = 1 + 1e-12
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


class _Decoded(NamedTuple):
    """Pixels of an image, maybe at a reduced scale.

    Attributes:
        image: RGB; (height, width, 3).
        box: (width, height) of the picture in it: a reduced one can end inside a pixel.
        full: (width, height) of the image in full, which the geometry is worked out from.
    """

    image: Image.Image | NDArray[np.uint8]
    box: Box
    full: tuple[int, int]


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
    decoded = decoded or _decode_other(data)
    # numpy copies, not torch: torch would wake its threads for it in each thread that decodes.
    square = _resize_and_crop(decoded, size_px, exact=exact)
    return torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))


def to_input(
    images: Tensor,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    *,
    mirrored: Tensor | None = None,
    exact: bool = False,
) -> Tensor:
    """uint8 pixels (N, 3, S, S) -> the tower's float32 (N, 3, S, S), on the device of the images.

    Args:
        images: pixels, 0 to 255.
        mean: of each channel, on the scale of 0 to 1; as a tensor on the same device.
        std: likewise.
        mirrored: (N,) bool on the same device: which images to mirror left and right.
        exact: the operations of torchvision's ToTensor and Normalize one by one, whose last bit
            differs.
    """
    if mirrored is not None:
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    pixels = images.to(torch.float32)
    means, deviations = (
        torch.as_tensor(values, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
        for values in (mean, std)
    )
    if exact:
        return pixels.div_(255).sub_(means).div_(deviations)
    return torch.addcmul(-means / deviations, pixels, 1 / (255 * deviations))


def _decode_jpeg(data: bytes, size_px: int) -> _Decoded | None:
    """None when libjpeg-turbo has a complaint: Pillow may still make sense of the file."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(width, height)
        full, least = (width, height), _REDUCED_SIDE * size_px
        at_least = (least, least) if min(full) >= 2 * least else full
        pixels, box = decode_jpeg(data, full, at_least, "RGB", strict=True)
    except UndecodableError:
        raise
    except _SIMPLEJPEG_ERRORS:
        return None
    return _Decoded(pixels, box, full)


def _decode_other(data: bytes) -> _Decoded:
    """The first frame of whatever it is."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_pixels(*image.size)
            return _Decoded(image.convert("RGB"), image.size, image.size)
    except _PILLOW_ERRORS as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UndecodableError(f"{width} x {height} pixels: expected at most {MAX_PIXELS}")


def _resize_and_crop(decoded: _Decoded, size_px: int, *, exact: bool) -> NDArray[np.uint8]:
    """The centre square of the image resized to a short side of S, as torchvision does both.

    Args:
        decoded: maybe at a reduced scale.
        size_px: S.
        exact: with Pillow's filter.

    Returns:
        (S, S, 3).
    """
    image, box, full = decoded
    short, long = sorted(full)
    new_long = int(size_px * long / short)
    first = round((new_long - size_px) / 2.0)
    is_wide = full[0] >= full[1]
    left, top = (first, 0) if is_wide else (0, first)
    most = MAX_PIXELS / size_px if exact else _FULL_RESIZE_ASPECT * size_px
    if new_long > most:
        return _resize_centre(_as_image(image), box, first, new_long, size_px)
    width, height = (new_long, size_px) if is_wide else (size_px, new_long)
    if exact:
        resized = np.asarray(_as_image(image).resize((width, height), Image.Resampling.BICUBIC))
    else:
        resized = _resize(np.asarray(image), box, width, height)
    return resized[top : top + size_px, left : left + size_px]


def _resize(pixels: NDArray[np.uint8], box: Box, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3), of which the box is picture -> (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if not pixels.flags.writeable:  # Pillow's; torch warns of these
        pixels = pixels.copy()
    # Channels stay last in memory, which torch's 8-bit kernel takes as it is.
    resized = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    picture = box[1], box[0]
    if pixels.shape[0] > max(height, _ROWS_FIRST_ASPECT * pixels.shape[1]):
        columns = pixels.shape[1]
        resized = _interpolate(resized, (picture[0], columns), (height, columns))
        picture = height, picture[1]
    resized = _interpolate(resized, picture, (height, width))
    found: NDArray[np.uint8] = resized.squeeze(0).permute(1, 2, 0).numpy()
    return found


def _interpolate(pixels: Tensor, picture: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W), of which so many rows and columns are picture -> (1, 3, *size)."""
    if list(picture) == list(pixels.shape[-2:]):
        return F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    # torch takes a fractional end as a factor alone, and rounds the size that comes of it down.
    factors = tuple(new / old * _A_HAIR_MORE for new, old in zip(size, picture, strict=True))
    return F.interpolate(pixels, scale_factor=factors, mode="bicubic", antialias=True)


def _resize_centre(
    image: Image.Image, box: Box, first: int, new_long: int, size_px: int
) -> NDArray[np.uint8]:
    """The square alone, from the part of a long image that it comes from."""
    end = float(max(box))
    low, high = first * end / new_long, min((first + size_px) * end / new_long, end)
    part = (low, 0, high, box[1]) if box[0] >= box[1] else (0, low, box[0], high)
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=part))


def _as_image(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


@dataclass(frozen=True, slots=True)
class Normalization:
    """How uint8 pixels become a vision tower's input.

    Attributes:
        mean: of each channel, of pixels scaled to 0-1.
        std: of each channel, likewise.
        exact: by torchvision's operations, to the last bit; see `to_input`.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    exact: bool = False
    _placed: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def applied(self, images: Tensor, *, mirrored: Tensor | None = None) -> Tensor:
        """uint8 (N, 3, S, S) -> float32 (N, 3, S, S); arguments as `to_input`."""
        mean, std = self._on(images.device)
        return to_input(images, mean, std, mirrored=mirrored, exact=self.exact)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation on a device, where they stay: no pass has to bring them there."""
        if device not in self._placed:
            with torch.inference_mode(mode=False):  # else training could not use them afterwards
                mean, std = (
                    to_device(torch.tensor(one, dtype=torch.float32), device)
                    for one in (self.mean, self.std)
                )
            self._placed[device] = mean, std
        return self._placed[device]


#: Pixels scaled to 0-1 and no more.
UNCHANGED = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def normalization_of(image_processor: Any) -> Normalization:
    """Mean and deviation of an encoder's own preprocessing.

    Args:
        image_processor: open_clip's. None where no tower is loaded: then no pixels will come, and
            what they are scaled by is not asked.
    """
    if image_processor is None:
        return UNCHANGED
    last = image_processor.transforms[-1]
    return Normalization(mean=tuple(last.mean), std=tuple(last.std))
