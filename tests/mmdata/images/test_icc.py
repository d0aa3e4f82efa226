"""What counts as sRGB, whatever it is called."""

import struct
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image, ImageCms

from mmdata.images.icc import is_srgb


def profile_of(data: bytes) -> bytes:
    return Image.open(BytesIO(data)).info["icc_profile"]


def gray_profile(curve: bytes) -> bytes:
    """The smallest gray profile: a header and one tone curve."""
    header = bytearray(128)
    header[16:24] = b"GRAYXYZ "
    return bytes(header) + struct.pack(">I4sII", 1, b"kTRC", 144, len(curve)) + curve


def test_srgb_profiles_of_different_makers(photo: Callable[[str], bytes]) -> None:
    assert is_srgb(profile_of(photo("pillow__rgb.jpg")))  # HP, a table of 1024 values
    assert is_srgb(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


@pytest.mark.parametrize("name", ["scikitimag__rocket.jpg", "scikitimag__page.png"])
def test_other_profiles(photo: Callable[[str], bytes], name: str) -> None:
    assert not is_srgb(profile_of(photo(name)))


def test_gray_curves() -> None:
    gamma_22 = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    linear = b"curv\0\0\0\0" + struct.pack(">I", 0)
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    srgb = b"para\0\0\0\0\0\3\0\0" + struct.pack(">5i", *(round(v * 65536) for v in values))
    assert is_srgb(gray_profile(srgb))
    assert not is_srgb(gray_profile(gamma_22))
    assert not is_srgb(gray_profile(linear))


@pytest.mark.parametrize("profile", [b"", b"junk" * 50, b"\0" * 128 + b"\xff" * 40])
def test_broken_profiles_are_not_srgb(profile: bytes) -> None:
    assert not is_srgb(profile)
