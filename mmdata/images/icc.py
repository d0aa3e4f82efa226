"""Colour profiles: is it sRGB already, and if not, convert.

Told by what the profile does (primaries and tone curve within 0.3%), not by what it is called:
sRGB goes by a dozen names, and some tools write "sRGB" on other curves. A profile that cannot be
parsed is ignored, as browsers do.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# ICC.1:2022 (D50) colorants of IEC 61966-2-1.
_SRGB_COLORANTS = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_SRGB_MATRIX = np.array(list(_SRGB_COLORANTS.values())).T
_TOLERANCE = 0.003
_MAX_SRGB_BYTES = 32 * 1024  # sRGB profiles are 0.4 to 7 kB
_SAMPLES = np.linspace(0.0, 1.0, 17)
_DEEP = np.arange(65_536) / 65_535
#: Of a `para` element: how many values each kind has (ICC.1:2022, 10.18).
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
#: A profile's curves and colorants fail in these ways where it is damaged.
_DAMAGE = (struct.error, KeyError, IndexError, OverflowError, ValueError, np.linalg.LinAlgError)
Values = NDArray[np.float64]
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile (RGB or gray, matrix/curve kind) is sRGB for practical purposes."""
    return len(profile) <= _MAX_SRGB_BYTES and _is_srgb(profile)


@lru_cache(maxsize=128)
def _is_srgb(profile: bytes) -> bool:
    try:
        tags = _tags(profile)
        if b"A2B0" in tags or profile[20:24] != b"XYZ ":
            return False
        if profile[16:20] == b"GRAY":
            return _is_srgb_curve(tags[b"kTRC"])
        if profile[16:20] != b"RGB ":
            return False
        if np.abs(_colorants(tags) - _SRGB_MATRIX).max() > _TOLERANCE:
            return False
        return all(_is_srgb_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    except _DAMAGE:
        return False


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (num_tags,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for i in range(min(num_tags, 100)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        tags[name] = profile[offset : offset + size]
    return tags


def _colorants(tags: dict[bytes, bytes]) -> Values:
    """(3, 3): XYZ, by rows, of red, green and blue."""
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in _SRGB_COLORANTS]
    xyz: Values = np.array(columns, np.float64).T / 65536
    return xyz


def _is_srgb_curve(tag: bytes) -> bool:
    return bool(np.abs(_curve(tag, _SAMPLES) - _srgb_linear(_SAMPLES)).max() <= _TOLERANCE)


def _srgb_linear(x: Values) -> Values:
    light: Values = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return light


def _srgb_encoded(light: Values) -> Values:
    curved = 1.055 * light ** (1 / 2.4) - 0.055
    encoded: Values = np.where(light <= 0.0031308, light * 12.92, curved)
    return encoded


def _curve(tag: bytes, x: Values) -> Values:
    """Values of a `curv` or `para` element (ICC.1:2022, 10.6 and 10.18) at x in 0 to 1."""
    if tag[:4] == b"curv":
        return _table_curve(tag, x)
    (kind,) = struct.unpack_from(">H", tag, 8)
    if tag[:4] != b"para" or kind not in _PARAMETERS:
        raise ValueError("unknown kind of curve")
    values = [v / 65536 for v in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)]
    if kind == 0:
        return _power(x, values[0])
    g, a, b, *rest = values
    inside = np.maximum(a * x + b, 0.0)
    power = _power(inside, g)
    if kind in (1, 2):
        raised = rest[0] if kind == 2 else 0.0
        curve: Values = np.where(inside > 0, power, 0.0) + raised
        return curve
    c, d, e, f = (*rest, 0.0, 0.0)[:4]
    curve = np.where(x < d, c * x + f, power + e)
    return curve


def _table_curve(tag: bytes, x: Values) -> Values:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return x
    if count == 1:
        return _power(x, struct.unpack_from(">H", tag, 12)[0] / 256)
    table = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
    return np.interp(x, np.linspace(0.0, 1.0, count), table)


def _power(x: Values, exponent: float) -> Values:
    with np.errstate(all="ignore"):  # of a damaged profile, below 0
        found: Values = x**exponent
    return found


#: From samples of 16 bits, (n, channels), to 8 bits in sRGB.
DeepConversion = Callable[[NDArray[np.uint16]], NDArray[np.uint8]]


def deep_conversion(profile: bytes | None, channels: int) -> DeepConversion | None:
    """How 16-bit samples become 8-bit sRGB by a profile of curves, losing nothing on the way.

    Args:
        profile: None for linear light of sRGB's primaries.
        channels: 1 of gray, 3 of RGB.

    Returns:
        None where the profile is of another kind (tables, another number of channels) or damaged.
    """
    if profile is None:
        return _conversion([_DEEP] * channels, None)
    try:
        tags = _tags(profile)
        wanted = {b"GRAY": 1, b"RGB ": 3}.get(profile[16:20])
        if wanted != channels or b"A2B0" in tags or profile[20:24] != b"XYZ ":
            return None
        if channels == 1:
            return _conversion([_curve(tags[b"kTRC"], _DEEP)], None)
        curves = [_curve(tags[name], _DEEP) for name in (b"rTRC", b"gTRC", b"bTRC")]
        return _conversion(curves, np.linalg.inv(_SRGB_MATRIX) @ _colorants(tags))
    except _DAMAGE:
        return None


def _conversion(curves: list[Values], matrix: Values | None) -> DeepConversion:
    """By a curve for each channel to linear light, by the matrix to sRGB's primaries."""
    light = [curve.astype(np.float32) for curve in curves]
    encoded = (np.clip(_srgb_encoded(_DEEP), 0.0, 1.0) * 255 + 0.5).astype(np.uint8)

    def convert(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
        linear = np.stack([curve[samples[:, k]] for k, curve in enumerate(light)], axis=1)
        if matrix is not None:
            linear = linear @ matrix.T.astype(np.float32)
        steps = np.nan_to_num(np.clip(linear, 0.0, 1.0)) * 65_535 + 0.5
        return encoded[steps.astype(np.uint16)]

    return convert


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """`image` (L, RGB or CMYK) in sRGB (L or RGB), by LittleCMS, perceptual intent.

    An image whose profile is broken or of another colour space comes back as it was (CMYK by
    Pillow's plain formula).
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if image.mode == "L":
            return image.point(_gray_curve(source))
        transform = _transform(source, image.mode)
        if image.mode == "RGB":
            transform.apply_in_place(image)
            return image
        converted: Image.Image = transform.apply(image)
        return converted
    except _PROFILE_ERRORS:
        return image if image.mode == "L" else image.convert("RGB")


def _transform(source: ImageCms.ImageCmsProfile, mode: str) -> Any:
    target = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL)


def _gray_curve(source: ImageCms.ImageCmsProfile) -> list[int]:
    """The 256 values that gray becomes; a table, so that gray stays one channel."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    return list(_transform(source, "L").apply(ramp).getchannel("G").tobytes())
