"""AVIF, and pictures of formats that are not read: each is called by its name."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from mmdata.images import ImagePolicy, ImageRejected, prepare_image, verify_image
from tests.mmdata.images.test_resize import psnr, smooth

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")


def ftyp(*brands: bytes) -> bytes:
    """The start of an ISO base media file."""
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">I", len(body) + 4) + body + bytes(40)


NAMED = {
    "HEIC": [ftyp(b"heic", b"mif1"), ftyp(b"mif1", b"heic"), ftyp(b"heix"), ftyp(b"hevc")],
    "HEIF": [ftyp(b"mif1"), ftyp(b"msf1")],
    "JPEG XL": [b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), b"\xff\x0a" + bytes(20)],
    "JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), b"\xff\x4f\xff\x51" + bytes(20)],
    "JPEG XR": [b"II\xbc\x01" + bytes(20)],
    "ICO": [b"\0\0\x01\0\x01\0" + bytes(30)],
    "PNM": [b"P6\n2 2\n255\n" + bytes(12), b"P1\n# words\n2 2\n1 0 0 1\n", b"P7\nWIDTH 2\n"],
    "Windows cursor": [b"\0\0\x02\0\x01\0\x20\x20" + bytes(30)],
    "TGA": [bytes([0, 0, 2, *[0] * 9, 4, 0, 4, 0, 24, 0]) + bytes(48)],
    "QOI": [b"qoif" + bytes(20)],
    "Photoshop": [b"8BPS\0\1" + bytes(20)],
    "OpenEXR": [b"v/1\x01" + bytes(20)],
    "DICOM": [bytes(128) + b"DICM" + bytes(20)],
    "camera raw": [ftyp(b"crx ")],
}


@pytest.mark.parametrize("name", NAMED)
def test_a_picture_of_another_format_is_called_by_its_name(name: str) -> None:
    for data in NAMED[name]:
        with pytest.raises(ImageRejected) as caught:
            verify_image(data, ImagePolicy())
        assert caught.value.reason == "unsupported-format"
        assert caught.value.detail.startswith(name)
        assert "needs " in caught.value.detail


@pytest.mark.parametrize(
    "data", [ftyp(b"isom", b"mp41"), b"P6 is a street", b"\0" * 30, b"OggS" * 9]
)
def test_what_is_no_picture_stays_none(data: bytes) -> None:
    with pytest.raises(ImageRejected, match="not-an-image"):
        verify_image(data, ImagePolicy())


def avif(image: Image.Image, **options: object) -> bytes:
    """Encoded quickly."""
    out = BytesIO()
    image.save(out, "AVIF", speed=10, **options)
    return out.getvalue()


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_read_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = avif(smooth(120, 60), quality=90, exif=exif)
    facts = verify_image(data, ImagePolicy())
    assert (facts.format, facts.needs_reencode) == ("avif", "avif")
    prepared = prepare_image(data, ImagePolicy())
    assert (prepared.format, prepared.reencoded) == ("jpeg", True)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert upright.size == (prepared.width, prepared.height)
    assert psnr(Image.open(BytesIO(prepared.data)), upright) > 35


@needs_avif
def test_avif_with_alpha_goes_on_white_and_becomes_smaller() -> None:
    image = smooth(120, 60).convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 60, 60))
    prepared = prepare_image(avif(image, quality=95), ImagePolicy(max_side=60))
    pixels = np.asarray(Image.open(BytesIO(prepared.data)))
    assert pixels.shape == (30, 60, 3)
    assert pixels[:, :26].min() >= 250


@needs_avif
def test_an_animation_gives_its_first_frame() -> None:
    data = avif(smooth(64, 64), save_all=True, append_images=[Image.new("RGB", (64, 64))])
    prepared = prepare_image(data, ImagePolicy())
    assert list(prepared.notes) == ["first-frame", "reencoded"]
    assert psnr(Image.open(BytesIO(prepared.data)), smooth(64, 64)) > 30


@needs_avif
def test_limits_and_damage_of_avif() -> None:
    data = avif(smooth(200, 150))
    with pytest.raises(ImageRejected, match="too-large: AVIF of 200 x 150 px"):
        prepare_image(data, ImagePolicy(max_pixels=29_999))
    for cut in range(12, len(data) - 1, len(data) // 40):
        with pytest.raises(ImageRejected) as caught:
            prepare_image(data[:cut], ImagePolicy())
        assert caught.value.reason in ("truncated", "unreadable")
        assert " at 0x" not in caught.value.detail


def test_avif_where_pillow_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ImageRejected, match=r"unsupported-format: an AVIF image: needs a Pillow"):
        verify_image(ftyp(b"avif", b"mif1"), ImagePolicy())
