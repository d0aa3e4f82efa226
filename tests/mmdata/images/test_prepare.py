"""What goes into a shard: unchanged where fit, re-encoded once where not."""

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from mmdata.images import ImagePolicy, ImageRejected, PreparedImage, prepare_image, verify_image

ASSETS = Path(__file__).parents[2] / "assets" / "images"
PHOTOS = ASSETS / "photos"
ALL_PHOTOS = sorted(path.name for path in PHOTOS.iterdir())
POLICY = ImagePolicy()


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(opened(data))


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def hopper(mode: str = "RGB") -> Image.Image:
    return opened((PHOTOS / "pillow__hopper.png").read_bytes()).convert(mode)


def reencoded(data: bytes, policy: ImagePolicy = POLICY) -> PreparedImage:
    prepared = prepare_image(data, policy)
    assert prepared.reencoded
    assert "reencoded" in prepared.notes
    image = opened(prepared.data)
    assert image.size == (prepared.width, prepared.height)
    assert image.mode in ("L", "RGB")
    assert not image.getexif()
    assert "icc_profile" not in image.info
    return prepared


def rejected(data: bytes, policy: ImagePolicy = POLICY) -> str:
    with pytest.raises(ImageRejected) as caught:
        prepare_image(data, policy)
    return str(caught.value.reason)


@pytest.mark.parametrize("name", ALL_PHOTOS)
def test_preparing_is_idempotent_and_deterministic(
    photo: Callable[[str], bytes], name: str
) -> None:
    once = prepare_image(photo(name), POLICY)
    assert once == prepare_image(photo(name), POLICY)
    twice = prepare_image(once.data, POLICY)
    assert twice.data == once.data
    assert not twice.reencoded
    assert verify_image(once.data, POLICY).needs_reencode is None
    image = opened(once.data)
    assert image.size == (once.width, once.height)
    assert image.format.lower() == once.format


@pytest.mark.parametrize(
    "name",
    [
        "pillow__hopper.jpg",
        "pillow__hopper_gray.jpg",
        "pillow__flower.jpg",
        "pillow__hopper.png",
        "pillow__copyleft.png",
        "pillow__hopper.webp",
        "pillow__rgb.jpg",  # sRGB profile
    ],
)
def test_a_fit_image_passes_through_unchanged(photo: Callable[[str], bytes], name: str) -> None:
    prepared = prepare_image(photo(name), POLICY)
    assert prepared.data == photo(name)
    assert prepared.notes == ()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_rotation_is_baked_in(photo: Callable[[str], bytes], orientation: int) -> None:
    data = photo(f"pillow__hopper_orientation_{orientation}.jpg")
    assert verify_image(data, POLICY).needs_reencode == f"orientation {orientation}"
    prepared = reencoded(data)
    upright = np.asarray(ImageOps.exif_transpose(opened(data))).astype(int)
    assert prepared.format == "jpeg"
    assert np.abs(pixels(prepared.data) - upright).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_rotation_of_lossless_images_is_exact(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(hopper().crop((0, 0, 100, 60)), kind, exif=exif, **options)
    prepared = prepare_image(data, POLICY)
    assert prepared.reencoded is (orientation != 1 or kind == "TIFF")
    upright = ImageOps.exif_transpose(opened(data))
    assert np.array_equal(pixels(prepared.data), np.asarray(upright))


def test_xmp_orientation_counts_where_exif_says_nothing() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    for data in (save(hopper(), "JPEG", xmp=xmp), save(hopper(), "WEBP", lossless=True, xmp=xmp)):
        assert verify_image(data, POLICY).needs_reencode == "orientation 3"
    exif = Image.Exif()
    exif[0x0112] = 1
    assert not prepare_image(save(hopper(), "JPEG", xmp=xmp, exif=exif), POLICY).reencoded


def test_damaged_exif_means_upright() -> None:
    for block in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ):
        assert not prepare_image(save(hopper(), "JPEG", exif=block), POLICY).reencoded


@pytest.mark.parametrize("name", ["transparent.png", "transparent.gif", "transparent.webp"])
def test_transparent_becomes_white(photo: Callable[[str], bytes], name: str) -> None:
    data = photo(f"pillow__{name}")
    prepared = reencoded(data)
    source = opened(data).convert("RGBA")
    clear = np.asarray(source)[..., 3] == 0
    assert clear.any()
    tolerance = 12 if prepared.format == "jpeg" else 0  # ringing at the edges of the shape
    got = pixels(prepared.data).astype(int)
    got = got[..., None] if got.ndim == 2 else got
    assert np.mean(255 - got[clear]) <= tolerance / 4
    white = Image.new("RGBA", source.size, "white")
    white.alpha_composite(source)
    expected = np.asarray(white.convert("RGB")).astype(int)
    assert np.abs(got - expected).mean() <= tolerance / 4


@pytest.mark.parametrize(
    ("mode", "key"), [("L", 0), ("1", 0), ("RGB", (0, 0, 0))], ids=["L", "1", "RGB"]
)
def test_a_transparent_colour_becomes_white(mode: str, key: object) -> None:
    image = Image.new(mode, (4, 4))
    prepared = reencoded(save(image, "PNG", transparency=key))
    assert (pixels(prepared.data) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_16_bit_ramp_stays_a_ramp(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    prepared = reencoded(save(Image.fromarray(ramp), kind))
    assert prepared.format == "png"
    assert np.array_equal(pixels(prepared.data), np.round(ramp / 257).astype(np.uint8))


def test_big_endian_and_white_is_zero_tiff() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = bytearray(save(Image.fromarray(ramp), "TIFF"))
    entry = data.index((262).to_bytes(2, "little") + b"\x03\0\x01\0\0\0")
    assert data[entry + 8] == 1
    data[entry + 8] = 0
    got = pixels(reencoded(bytes(data)).data)
    assert np.array_equal(got, 255 - np.round(ramp / 257).astype(np.uint8))


@pytest.mark.parametrize("name", ["scikitimag__rocket.jpg", "scikitimag__page.png"])
def test_another_profile_is_converted(photo: Callable[[str], bytes], name: str) -> None:
    """Adobe RGB and Dot Gain 20%, against LittleCMS asked directly."""
    source = opened(photo(name))
    profile = ImageCms.ImageCmsProfile(BytesIO(source.info["icc_profile"]))
    srgb = ImageCms.createProfile("sRGB")
    expected = ImageCms.profileToProfile(source, profile, srgb, outputMode="RGB")
    prepared = reencoded(photo(name))
    assert verify_image(photo(name), POLICY).needs_reencode == "colour profile"
    got = np.asarray(opened(prepared.data).convert("RGB")).astype(int)
    before = np.abs(np.asarray(source.convert("RGB")).astype(int) - got).mean()
    after = np.abs(np.asarray(expected).astype(int) - got).mean()
    assert after < 1.5 < before / 2
    assert opened(prepared.data).mode == source.mode


def test_a_broken_profile_is_dropped() -> None:
    data = save(hopper(), "PNG", icc_profile=b"not a profile")
    assert np.array_equal(pixels(reencoded(data).data), np.asarray(hopper()))


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (save(hopper(), "BMP"), "png", "bmp"),
        (save(hopper(), "TIFF", compression="tiff_lzw"), "png", "tiff"),
        (save(hopper(), "TIFF", compression="jpeg"), "jpeg", "tiff"),
        (save(hopper(), "TIFF", big_tiff=True), "png", "tiff"),
        (save(hopper("CMYK"), "TIFF"), "png", "tiff"),
        (save(hopper("CMYK"), "JPEG"), "jpeg", "cmyk"),
        (save(hopper("CMYK"), "JPEG", progressive=True), "jpeg", "cmyk"),
        (save(hopper("1"), "PNG"), "png", "1-bit"),
        (save(hopper("LA"), "PNG"), "png", "alpha"),
        (save(hopper().quantize(16), "PNG", bits=4), "png", "palette"),
        (save(hopper().quantize(), "GIF"), "png", "gif"),
        (save(hopper("RGBA"), "WEBP", lossless=True, exact=True), "webp", None),
    ],
)
def test_what_becomes_of_each_kind(data: bytes, kind: str, why: str | None) -> None:
    assert verify_image(data, POLICY).needs_reencode == why
    prepared = prepare_image(data, POLICY)
    assert (prepared.format, prepared.reencoded) == (kind, why is not None)
    assert (prepared.width, prepared.height) == (128, 128)


@pytest.mark.parametrize(
    ("kind", "options", "to"),
    [
        ("GIF", {}, "png"),
        ("PNG", {}, "png"),
        ("WEBP", {}, "jpeg"),
        ("WEBP", {"lossless": True}, "png"),
        ("TIFF", {}, "png"),
    ],
)
def test_of_several_frames_the_first(kind: str, options: dict[str, bool], to: str) -> None:
    second = ImageOps.invert(hopper())
    data = save(hopper(), kind, save_all=True, append_images=[second], **options)
    prepared = reencoded(data)
    assert list(prepared.notes) == ["first-frame", "reencoded"]
    assert prepared.format == to
    got = np.asarray(opened(prepared.data).convert("RGB")).astype(int)
    assert np.abs(got - np.asarray(hopper())).mean() < 12  # GIF's palette is the coarsest


def test_a_multi_picture_jpeg_passes_through() -> None:
    data = save(hopper(), "MPO", save_all=True, append_images=[hopper()])
    prepared = prepare_image(data, POLICY)
    assert prepared.data == data
    assert list(prepared.notes) == ["trailing-bytes"]


def test_samples_without_a_range_are_unreadable() -> None:
    for mode in ("F", "I"):
        assert rejected(save(hopper(mode), "TIFF")) == "unreadable"


@pytest.mark.parametrize("kind", ["ICO", "PPM", "JPEG2000", "TGA", "QOI", "SGI", "DDS"])
def test_other_formats_are_called_unsupported(kind: str) -> None:
    assert rejected(save(hopper(), kind)) == "unsupported-format"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (ImagePolicy(max_pixels=128 * 128 - 1), "too-large"),
        (ImagePolicy(max_bytes=6411), "too-large"),
        (ImagePolicy(min_side=129), "too-small"),
        (ImagePolicy(min_bytes=6413), "too-small"),
    ],
)
def test_limits_of_size(policy: ImagePolicy, reason: str) -> None:
    assert rejected((PHOTOS / "pillow__hopper.jpg").read_bytes(), policy) == reason


def test_limits_hold_at_their_edge() -> None:
    data = (PHOTOS / "pillow__hopper.jpg").read_bytes()
    policy = ImagePolicy(max_pixels=128**2, max_bytes=6412, min_side=128, min_bytes=6412)
    assert prepare_image(data, policy).data == data


def test_limit_of_aspect() -> None:
    data = save(hopper().resize((90, 30)), "PNG")
    assert prepare_image(data, ImagePolicy(max_aspect=3)).data == data
    assert rejected(data, ImagePolicy(max_aspect=2.9)) == "bad-aspect"


def test_pillow_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    prepare_image(save(hopper(), "BMP"), ImagePolicy(max_pixels=20_000))
    rejected(save(hopper(), "BMP")[:900])
    assert before == Image.MAX_IMAGE_PIXELS


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], recwarn: object) -> None:
    data = bytearray(save(hopper(), "TIFF", compression="tiff_lzw"))
    for at in range(9, len(data), 997):
        data[at] ^= 0xFF
        with suppress(ImageRejected):
            prepare_image(bytes(data), POLICY)
    assert capfd.readouterr() == ("", "")
    assert list(recwarn) == []  # type: ignore[call-overload]


@pytest.mark.filterwarnings("ignore")  # of the test's own Image.open
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_raise_nothing_but_rejection(data: st.DataObject) -> None:
    source = (PHOTOS / data.draw(st.sampled_from(ALL_PHOTOS))).read_bytes()
    damaged = bytearray(source[: data.draw(st.integers(0, len(source)) | st.just(len(source)))])
    for _ in range(data.draw(st.integers(0, 6))):
        if damaged:
            at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, 64))
            damaged[at % len(damaged)] = data.draw(st.integers(0, 255))
    verify = data.draw(st.sampled_from(["header", "decode", "full"]))
    with suppress(ImageRejected):
        prepared = prepare_image(bytes(damaged), ImagePolicy(verify=verify))
        if verify != "header":
            assert opened(prepared.data).size == (prepared.width, prepared.height)


def test_offsets_of_64_bits_are_no_surprise() -> None:
    assert rejected(b"II+\0\x08\0\0\0" + b"\xff" * 40) == "truncated"


@given(tail=st.binary(max_size=300), magic=st.sampled_from([b"", b"\xff\xd8\xff", b"II*\0", b"BM"]))
def test_noise_raises_nothing_but_rejection(tail: bytes, magic: bytes) -> None:
    with pytest.raises(ImageRejected):
        prepare_image(magic + tail, POLICY)
