"""Images made smaller or turned into another format: only where asked, once, and still checked."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmdata.images import ImagePolicy, ImageRejected, PreparedImage, prepare_image, verify_image
from mmdata.images.resize import smaller_size


def smooth(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture with low and high frequencies that is not the same either way up."""
    y, x = np.mgrid[0:height, 0:width]
    red = 128 + 100 * np.sin(x / 40) * np.cos(y / 60)
    green = 255 * x / width
    blue = 128 + 60 * np.sin((x + 2 * y) / 60)
    pixels = np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decoded(prepared: PreparedImage) -> Image.Image:
    image = Image.open(BytesIO(prepared.data))
    assert image.size == (prepared.width, prepared.height)
    assert image.format.lower() == prepared.format
    return image


def psnr(one: Image.Image, other: Image.Image) -> float:
    a, b = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (one, other))
    return float(10 * np.log10(255**2 / max(((a - b) ** 2).mean(), 1e-9)))


def asked(**more: object) -> ImagePolicy:
    return ImagePolicy(**({"max_side": 100} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [
        ((100, 80), "longest", None),
        ((101, 80), "longest", (100, 79)),
        ((400, 300), "longest", (100, 75)),
        ((300, 400), "longest", (75, 100)),
        ((400, 300), "shortest", (133, 100)),
        ((400, 100), "shortest", None),
        ((9999, 3), "longest", (100, 1)),
    ],
)
def test_sizes(size: tuple[int, int], mode: str, expected: tuple[int, int] | None) -> None:
    assert smaller_size(*size, asked(resize_mode=mode)) == expected
    assert smaller_size(*size, ImagePolicy(resize_mode=mode)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_small_enough_passes_through(kind: str) -> None:
    data = save(smooth(100, 60), kind)
    prepared = prepare_image(data, asked(quality=10))
    assert prepared.data == data
    assert not prepared.reencoded


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("verify", ["header", "decode", "full"])
def test_a_jpeg_becomes_smaller(mode: str, progressive: bool, verify: str) -> None:
    source = smooth(1200, 800, mode)
    data = save(source, quality=95, progressive=progressive)
    prepared = prepare_image(data, asked(verify=verify))
    image = decoded(prepared)
    assert (image.size, image.mode, prepared.format) == ((100, 67), mode, "jpeg")
    assert psnr(image, source.resize((100, 67), Image.Resampling.LANCZOS)) > 32
    assert list(prepared.notes) == ["reencoded"]
    again = prepare_image(prepared.data, asked(verify=verify))
    assert again.data == prepared.data


def test_each_scale_of_the_codec_gives_the_asked_size() -> None:
    """From a pixel less than the source to far below an eighth of it."""
    source = smooth(500, 333)
    data = save(source, quality=95)
    for side in (499, 450, 400, 399, 300, 201, 100, 50):
        image = decoded(prepare_image(data, asked(max_side=side)))
        assert max(image.size) == side
        assert psnr(image, source.resize(image.size, Image.Resampling.LANCZOS)) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_rotation_is_baked_into_the_smaller_image(kind: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(smooth(400, 200), kind, exif=exif)
    image = decoded(prepare_image(data, asked()))
    assert image.size == ((100, 50) if orientation < 5 else (50, 100))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert psnr(image, upright.resize(image.size, Image.Resampling.LANCZOS)) > 30


def test_a_profile_is_converted_in_the_smaller_image(photo: Callable[[str], bytes]) -> None:
    data = photo("scikitimag__rocket.jpg")
    source = Image.open(BytesIO(data))
    profile = ImageCms.ImageCmsProfile(BytesIO(source.info["icc_profile"]))
    srgb = ImageCms.profileToProfile(source, profile, ImageCms.createProfile("sRGB"))
    image = decoded(prepare_image(data, asked(max_side=200)))
    assert "icc_profile" not in image.info
    expected = srgb.resize(image.size, Image.Resampling.LANCZOS)
    assert psnr(image, expected) > max(30, psnr(image, source.resize(image.size)) + 3)


def test_what_is_clear_does_not_bleed_in() -> None:
    """Red behind full transparency is white in the shard, at the edges too."""
    image = Image.new("RGBA", (400, 400), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 200, 400))
    small = np.asarray(decoded(prepare_image(save(image, "PNG"), asked())))
    assert np.abs(small[..., 0].astype(int) - small[..., 1]).max() == 0


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("RGB", "BMP")]
)
def test_other_kinds_become_smaller(mode: str, kind: str) -> None:
    source = smooth(800, 400).quantize(256) if mode == "P" else smooth(800, 400, mode)
    image = decoded(prepare_image(save(source, kind), asked()))
    assert image.size == (100, 50)
    assert image.mode in ("RGB", "L")
    wanted = source.convert("L" if mode == "1" else "RGB")
    assert psnr(image, wanted.resize((100, 50), Image.Resampling.LANCZOS)) > 25


@pytest.mark.parametrize(
    ("kind", "options", "image_format", "expected"),
    [
        ("JPEG", {}, "keep", "jpeg"),
        ("WEBP", {}, "keep", "webp"),
        ("PNG", {}, "keep", "png"),
        ("JPEG", {}, "jpeg", "jpeg"),
        ("PNG", {}, "jpeg", "jpeg"),
        ("WEBP", {"lossless": True}, "jpeg", "jpeg"),
        ("GIF", {}, "jpeg", "jpeg"),
        ("JPEG", {}, "webp", "webp"),
        ("PNG", {}, "webp", "webp"),
        ("WEBP", {"lossless": True}, "webp", "webp"),
        ("BMP", {}, "webp", "webp"),
    ],
)
def test_formats_asked_for(
    kind: str, options: dict[str, object], image_format: str, expected: str
) -> None:
    data = save(smooth(90, 60), kind, **options)
    prepared = prepare_image(data, asked(image_format=image_format))
    assert prepared.format == expected
    assert prepared.reencoded is (kind.lower() != expected)
    assert prepared.reencoded is (prepared.data != data)
    assert prepare_image(prepared.data, asked(image_format=image_format)).data == prepared.data
    assert decoded(prepared).size == (90, 60)


@pytest.mark.parametrize(("kind", "expected"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "jpeg")])
def test_a_smaller_image_keeps_what_it_lost_or_not(kind: str, expected: str) -> None:
    assert prepare_image(save(smooth(300, 200), kind), asked()).format == expected


def test_quality_is_of_what_is_encoded() -> None:
    data = save(smooth(600, 400), quality=95)
    for image_format in ("jpeg", "webp"):
        sizes = [
            len(prepare_image(data, asked(image_format=image_format, quality=quality)).data)
            for quality in (30, 60, 100)
        ]
        assert sizes == sorted(set(sizes))


def test_what_has_no_room_in_webp_stays() -> None:
    data = save(Image.new("L", (16_384, 2)))
    assert prepare_image(data, ImagePolicy(image_format="webp")).data == data


@pytest.mark.parametrize("verify", ["header", "decode", "full"])
@pytest.mark.parametrize("progressive", [False, True])
def test_damage_is_found_as_without_resizing(verify: str, progressive: bool) -> None:
    """Cut anywhere, and cut with an end mark put behind: never an image half gray."""
    data = save(smooth(640, 480), quality=90, progressive=progressive)
    for cut in range(200, len(data) - 2, len(data) // 23):
        for broken in (data[:cut], data[:cut] + b"\xff\xd9"):
            reasons = []
            for policy in (ImagePolicy(verify="decode"), asked(verify=verify)):
                with pytest.raises(ImageRejected) as caught:
                    prepare_image(broken, policy)
                reasons.append(caught.value.reason)
            assert reasons[0] == reasons[1]


def test_stray_bytes_are_judged_as_without_resizing() -> None:
    data = save(smooth(400, 300))
    at = data.index(b"\xff\xdb")
    noted = data[:at] + b"\0\0\0" + data[at:]
    prepared = prepare_image(noted, asked())
    assert list(prepared.notes) == ["jpeg-warning", "reencoded"]
    assert decoded(prepared).size == (100, 75)
    with pytest.raises(ImageRejected, match="jpeg-warning"):
        prepare_image(noted, asked(jpeg_warnings="drop"))


def test_limits_are_of_the_image_as_it_came() -> None:
    data = save(smooth(400, 300))
    with pytest.raises(ImageRejected, match="too-large"):
        prepare_image(data, asked(max_pixels=100_000))
    assert prepare_image(data, asked(min_side=300)).width == 100


def test_why_is_said() -> None:
    data = save(smooth(400, 300), "PNG")
    assert verify_image(data, asked()).needs_reencode == "larger than 100 px"
    assert verify_image(data, ImagePolicy(image_format="jpeg")).needs_reencode == "not jpeg"
    assert verify_image(data, ImagePolicy()).needs_reencode is None
