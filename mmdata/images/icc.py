"""Colour profiles: is it sRGB already, and if not, convert.

Told by what the profile does (primaries and tone curve within 0.3%), not by what it is called:
sRGB goes by a dozen names, and some tools write "sRGB" on other curves. A profile that cannot be
parsed is ignored, as browsers do.
"""

import struct
from functools import lru_cache
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

# ICC.1:2022 (D50) colorants of IEC 61966-2-1.
_SRGB_COLORANTS = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_TOLERANCE = 0.003
_MAX_SRGB_BYTES = 32 * 1024  # sRGB profiles are 0.4 to 7 kB
_SAMPLES = [i / 16 for i in range(17)]
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
        for name, expected in _SRGB_COLORANTS.items():
            x, y, z = (v / 65536 for v in struct.unpack_from(">3i", tags[name], 8))
            got = (x, y, z)
            if any(abs(g - e) > _TOLERANCE for g, e in zip(got, expected, strict=True)):
                return False
        return all(_is_srgb_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    except (struct.error, KeyError, IndexError, OverflowError, ValueError, ZeroDivisionError):
        return False


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (num_tags,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for i in range(min(num_tags, 100)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        tags[name] = profile[offset : offset + size]
    return tags


def _is_srgb_curve(tag: bytes) -> bool:
    return all(abs(_curve_at(tag, x) - _srgb_linear(x)) <= _TOLERANCE for x in _SAMPLES)


def _srgb_linear(x: float) -> float:
    return x / 12.92 if x <= 0.04045 else float(((x + 0.055) / 1.055) ** 2.4)


def _curve_at(tag: bytes, x: float) -> float:
    """Value of a `curv` or `para` element (ICC.1:2022, 10.6 and 10.18) at x in 0 to 1."""
    if tag[:4] == b"curv":
        return _table_at(tag, x)
    (kind,) = struct.unpack_from(">H", tag, 8)
    if tag[:4] != b"para" or kind not in (0, 3, 4):
        raise ValueError("unknown kind of curve")
    num_values = {0: 1, 3: 5, 4: 7}[kind]
    values = [v / 65536 for v in struct.unpack_from(f">{num_values}i", tag, 12)]
    if kind == 0:
        return float(x ** values[0])
    g, a, b, c, d, e, f = (*values, 0.0, 0.0)[:7]
    return float(c * x + f if x < d else max(0.0, a * x + b) ** g + e)


def _table_at(tag: bytes, x: float) -> float:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return x
    if count == 1:
        return float(x ** (struct.unpack_from(">H", tag, 12)[0] / 256))
    left = min(int(x * (count - 1)), count - 2)
    low, high = struct.unpack_from(">2H", tag, 12 + 2 * left)
    fraction = x * (count - 1) - left
    return float((low + (high - low) * fraction) / 65535)


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
