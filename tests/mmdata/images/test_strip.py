"""Metadata are cut out to the last byte, and no pixel changes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmdata.images import ImagePolicy, ImageRejected, prepare_image
from mmdata.images.facts import Format
from mmdata.images.strip import strip_metadata

SECRET = b"John Doe 4711"
STRIP = ImagePolicy(strip=True)
PICTURES = sorted((Path(__file__).parents[2] / "assets" / "images").rglob("*.*"))


def secretive(kind: str, *, progressive: bool = False) -> bytes:
    """A picture that tells a name wherever its format has room for one."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    sink = io.BytesIO()
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Patient", SECRET.decode())
        info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
        image.save(sink, kind, pnginfo=info, exif=exif)
    elif kind == "WEBP":
        image.save(sink, kind, exif=exif, xmp=SECRET, quality=80)
    else:
        image.save(sink, kind, exif=exif, comment=SECRET, xmp=SECRET, progressive=progressive)
    return sink.getvalue()


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_name_is_gone_and_the_picture_is_not(kind: str, progressive: bool) -> None:
    data = secretive(kind, progressive=progressive) + b"tail of " + SECRET
    if kind == "WEBP":  # bytes behind a WebP are refused by some readers
        data = secretive(kind)
    assert SECRET in data
    prepared = prepare_image(data, STRIP)
    assert not prepared.reencoded
    assert SECRET not in prepared.data
    assert pixels(prepared.data) == pixels(data)
    assert prepare_image(data, ImagePolicy()).data == data


def test_a_picture_without_metadata_stays_to_the_byte() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        sink = io.BytesIO()
        Image.new("RGB", (9, 7), "red").save(sink, kind)
        assert prepare_image(sink.getvalue(), STRIP).data == sink.getvalue()


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_what_passes_through_still_does(path: Path) -> None:
    """Stripping again changes nothing, and the result is as fit as the source was."""
    try:
        plain = prepare_image(path.read_bytes(), ImagePolicy())
    except ImageRejected:
        return
    if plain.reencoded:
        assert prepare_image(path.read_bytes(), STRIP).data == plain.data
        return
    stripped = prepare_image(path.read_bytes(), STRIP)
    assert (stripped.width, stripped.height) == (plain.width, plain.height)
    assert pixels(stripped.data) == pixels(plain.data)
    assert prepare_image(stripped.data, STRIP).data == stripped.data
    assert not prepare_image(stripped.data, ImagePolicy()).reencoded


def test_a_colour_profile_stays() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        sink = io.BytesIO()
        Image.new("RGB", (9, 7), "red").save(sink, kind, icc_profile=profile)
        kind_of: Format = kind.lower()  # type: ignore[assignment]
        kept = Image.open(io.BytesIO(strip_metadata(sink.getvalue(), kind_of))).info["icc_profile"]
        assert kept == profile


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"\xff\xd8\xff\xe1\x00\x04ab\x00junk", "jpeg"), (b"\xff\xd8\xff\xda\x00\x02abc", "jpeg"),
     (b"\x89PNG\r\n\x1a\n\x00\x00", "png"), (b"RIFF\x20\x00\x00\x00WEBPVP8 ", "webp")],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused(data: bytes, kind: Format) -> None:
    with pytest.raises(ImageRejected, match=r"unreadable: .* whose metadata cannot be told apart"):
        strip_metadata(data, kind)
