"""Samples of 16 bits, several a pixel, with both of their bytes where the lower one matters.

Pillow has no mode for them and keeps the upper byte. That is enough to look at a picture, but not
to find the colour that stands for transparency, and in linear light one step of the upper byte is
13 levels in the shadows. So the file is decoded a second time for the lower bytes, where there is
such a colour, or light or a profile to be converted from.
"""

import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmdata.images.facts import Header
from mmdata.images.icc import DeepConversion, deep_conversion
from mmdata.images.pillow import load

_ROWS = 256  # at a time: a copy of 24 Mpx in 16 bits would be 144 MB
_PREMULTIPLIED = 1  # TIFF's ExtraSamples


def in_eight_bits(
    image: Image.Image, data: bytes, header: Header, max_pixels: int
) -> Image.Image | None:
    """Deep colour, or gray with alpha, as 8 bits of sRGB with nothing left to convert.

    None where there is no need: the image then goes the way of all others. The image is written
    to, and its file is decoded again. Raises `ImageRejected`.
    """
    icc = image.info.get("icc_profile") if header.format == "tiff" else header.icc
    channels = 1 if header.gray_alpha else 3
    convert = None
    if header.linear or icc:
        convert = deep_conversion(None if header.linear else icc, channels)
    if not header.deep or not (convert or header.clear or _is_bytes(header)):
        return None
    if header.gray_alpha:
        if not _is_bytes(header):
            image, _ = load(data, header, max_pixels, raw_mode="RGBA")
        return _gray_on_white(image, header, convert)
    if image.mode in ("RGB", "RGBA"):
        low, _ = load(data, header, max_pixels, low_bytes=True)
        _write_colour(image, low, header, convert)
        return image
    return None


def _is_bytes(header: Header) -> bool:
    """Whether Pillow handed over bytes that only this module can make sense of."""
    return header.gray_alpha and header.format == "tiff"


def _write_colour(
    image: Image.Image, low: Image.Image, header: Header, convert: DeepConversion | None
) -> None:
    """8-bit colour into the image, white where it is clear; alpha stays."""
    width, height = image.size
    for top in range(0, height, _ROWS):
        part = (0, top, width, min(top + _ROWS, height))
        high = np.array(image.crop(part))
        samples: NDArray[np.uint16] = high[..., :3].astype(np.uint16) << np.uint16(8)
        samples |= np.asarray(low.crop(part))[..., :3]
        if convert is not None:
            flat: NDArray[np.uint16] = samples.reshape(-1, 3)
            high[..., :3] = convert(flat).reshape(samples.shape)
        if header.clear:
            high[(samples == np.array(header.clear, np.uint16)).all(axis=2)] = 255
        image.paste(Image.fromarray(high), (0, top))
    for done in ("transparency", "icc_profile"):
        image.info.pop(done, None)


def _gray_on_white(
    image: Image.Image, header: Header, convert: DeepConversion | None
) -> Image.Image:
    """Gray from the four bytes of gray and alpha."""
    width, height = image.size
    gray = Image.new("L", image.size)
    for top in range(0, height, _ROWS):
        part = (0, top, width, min(top + _ROWS, height))
        sample, alpha = _two_samples(np.asarray(image.crop(part)), header)
        if header.white_is_zero:
            sample = ~sample
        shown = _over_white(sample, alpha, header, convert)
        gray.paste(Image.fromarray(shown), (0, top))
    return gray


def _over_white(
    sample: NDArray[np.uint16],
    alpha: NDArray[np.uint16],
    header: Header,
    convert: DeepConversion | None,
) -> NDArray[np.uint8]:
    gray: NDArray[np.float64] = sample / 257
    if convert is not None and header.extra != _PREMULTIPLIED:
        gray = convert(sample.reshape(-1, 1)).reshape(sample.shape).astype(np.float64)
    share = alpha / 65_535
    if header.extra == _PREMULTIPLIED:
        gray = np.minimum(gray + 255 * (1 - share), 255)
    elif header.extra:
        gray = 255 - (255 - gray) * share
    return (gray + 0.5).astype(np.uint8)


def _two_samples(
    four: NDArray[np.uint8], header: Header
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """(gray, alpha) of the bytes of both."""
    is_little = header.low_byte_first if header.unpacked else sys.byteorder == "little"
    samples = np.ascontiguousarray(four).view("<u2" if is_little else ">u2")
    return samples[..., 0].astype(np.uint16), samples[..., 1].astype(np.uint16)
