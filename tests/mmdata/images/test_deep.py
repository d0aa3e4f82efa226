"""Samples of more than 8 bits: both bytes count where they decide, and every form has its name."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageCms

from mmdata.images import ImagePolicy, ImageRejected, prepare_image
from mmdata.images.icc import deep_conversion
from tests.mmdata.images.samples import png16, tiff

GAMMA_1 = (b"gAMA", struct.pack(">I", 100_000))
RAMP = np.linspace(0, 65_535, 600).astype(np.uint16).reshape(20, 30, 1)


def shown(data: bytes, window: str = "full") -> NDArray[np.int64]:
    """The pixels that go into a shard."""
    prepared = prepare_image(data, ImagePolicy(window=window))
    assert prepared.reencoded
    return np.asarray(Image.open(BytesIO(prepared.data))).astype(int)


def encoded_light(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB's curve (IEC 61966-2-1), 0 to 1 in, 0 to 255 out."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def matrix_profile(curve: bytes, space: bytes = b"RGB ") -> bytes:
    """sRGB's colorants, or gray, with one curve for all."""
    values = {
        b"rXYZ": (0.4361, 0.2225, 0.0139), b"gXYZ": (0.3851, 0.7169, 0.0971),
        b"bXYZ": (0.1431, 0.0606, 0.7141),
    }  # fmt: skip
    tags = {b"kTRC": curve}
    if space == b"RGB ":
        tags = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
        for name, xyz in values.items():
            tags[name] = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in xyz))
    header = bytearray(128)
    header[16:24] = space + b"XYZ "
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(value))
        body += value
    return bytes(header) + table + body


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    """The chunk of a profile."""
    return b"iCCP", b"a\0\0" + zlib.compress(profile)


LINEAR = b"curv" + bytes(8)
GAMMA_18 = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256))


@given(
    samples=arrays(np.uint16, (5, 4, 3), elements=st.sampled_from([0x1234, 0x3412, 0x1200, 0x34])),
    key=st.tuples(*[st.sampled_from([0x1234, 0x3412, 0x1200, 0x34])] * 3),
)
def test_the_clear_colour_is_found_by_both_bytes(
    samples: NDArray[np.uint16], key: tuple[int, int, int]
) -> None:
    clear = (samples == np.array(key)).all(axis=2)
    found = shown(png16(samples, (b"tRNS", struct.pack(">3H", *key))))
    assert (found[clear] == 255).all()
    assert (found[~clear] == (samples[~clear] >> 8)).all()


def test_a_clear_gray_is_found_by_both_bytes() -> None:
    samples = np.array([[[0x1234], [0x1235], [0x3412]]], np.uint16)
    assert shown(png16(samples, (b"tRNS", b"\x12\x34"))).tolist() == [[255, 0x12, 0x34]]


LINEAR_FORMS = {
    "gamma": [GAMMA_1],
    "cicp": [(b"cICP", bytes([1, 8, 0, 1])), (b"sRGB", b"\0")],
}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("form", LINEAR_FORMS)
def test_linear_light_is_encoded_before_it_loses_its_lower_byte(channels: int, form: str) -> None:
    colours = 1 if channels < 3 else 3
    samples = np.repeat(RAMP, channels, axis=2)
    if channels in (2, 4):
        samples[..., -1] = 65_535
    found = shown(png16(samples, *LINEAR_FORMS[form])).reshape(20, 30, -1)
    wanted = encoded_light(samples[..., :colours] / 65_535)
    assert np.abs(found[..., :colours] - wanted).max() <= 0.75
    assert len(np.unique(found)) > 180  # of the upper byte alone, the shadows would have steps


@pytest.mark.parametrize("colours", [1, 3])
def test_a_linear_profile_too(colours: int) -> None:
    profile = matrix_profile(LINEAR, b"GRAY" if colours == 1 else b"RGB ")
    samples = np.repeat(RAMP, colours, axis=2)
    wanted = encoded_light(samples / 65_535)
    for data in (
        png16(samples, iccp(profile)),
        tiff(samples, icc=list(profile), photometric=[1 if colours == 1 else 2]),
        tiff(samples, order=">", packed=True, icc=list(profile),
             photometric=[1 if colours == 1 else 2]),
    ):  # fmt: skip
        found = shown(data).reshape(wanted.shape)
        assert np.abs(found - wanted).max() <= 1.0


@pytest.mark.parametrize(
    "chunks", [[GAMMA_1, (b"sRGB", b"\0")], [(b"gAMA", struct.pack(">I", 45_455))]]
)
def test_what_is_not_linear_stays(chunks: list[tuple[bytes, bytes]]) -> None:
    samples = np.repeat(RAMP, 3, axis=2)
    assert (shown(png16(samples, *chunks)) == samples >> 8).all()


def test_8_bits_stay_whatever_their_gamma_says() -> None:
    """Most files that say so were written by tools that did not mean it."""
    out = BytesIO()
    Image.linear_gradient("L").save(out, "PNG")
    data = out.getvalue()
    at = 8 + 25
    data = data[:at] + png16(RAMP, GAMMA_1)[at : at + 16] + data[at:]
    assert prepare_image(data, ImagePolicy()).data == data


def test_deep_conversion_agrees_with_little_cms(photo: Callable[[str], bytes]) -> None:
    """On a camera's profile of its own primaries, and on a gamma of 1.8."""
    rocket = Image.open(BytesIO(photo("scikitimag__rocket.jpg"))).info["icc_profile"]
    ours = matrix_profile(GAMMA_18)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 25, 3), dtype=np.uint8)
    for profile in (rocket, ours):
        convert = deep_conversion(profile, 3)
        assert convert is not None
        found = convert(pixels.reshape(-1, 3).astype(np.uint16) * 257).reshape(pixels.shape)
        if profile is ours:  # too short a header for LittleCMS
            wanted = encoded_light((pixels / 255) ** 1.8)
        else:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            wanted = np.asarray(ImageCms.profileToProfile(Image.fromarray(pixels), source, target))
        assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("profile", [b"", b"junk" * 50, matrix_profile(b"curv\xff")])
def test_a_damaged_profile_converts_nothing(profile: bytes) -> None:
    assert deep_conversion(profile, 3) is None
    assert shown(png16(np.repeat(RAMP, 3, axis=2), iccp(profile))).shape == (20, 30, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
class TestTiff:
    """Forms that Pillow reads wrongly, or not, by both byte orders."""

    def test_gray_and_alpha_go_on_white(self, order: str, packed: bool) -> None:
        rng = np.random.default_rng(0)
        samples = rng.integers(0, 65_536, (9, 7, 2), dtype=np.uint16)
        gray, alpha = samples[..., 0] / 257, samples[..., 1] / 65_535
        found = shown(tiff(samples, order=order, packed=packed, extra=[2]))
        assert np.abs(found - (255 - (255 - gray) * alpha)).max() <= 0.51
        inverted = tiff(samples, order=order, packed=packed, extra=[2], photometric=[0])
        assert np.abs(shown(inverted) - (255 - gray * alpha)).max() <= 0.51
        premultiplied = samples.copy()
        premultiplied[..., 0] = samples[..., 0] * alpha
        found = shown(tiff(premultiplied, order=order, packed=packed, extra=[1]))
        assert np.abs(found - (255 - (255 - gray) * alpha)).max() <= 1.0

    @pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32"])
    def test_a_window_reads_what_has_no_range(self, order: str, packed: bool, dtype: str) -> None:
        low, high = (0, 2**32 - 1) if dtype == "uint32" else (-30_000, 30_000)
        samples = np.linspace(low, high, 600).reshape(20, 30).astype(dtype)
        data = tiff(samples, order=order, packed=packed)
        found = shown(data, "auto").ravel()
        assert (found[0], found[-1]) == (0, 255)
        assert (np.diff(found) >= 0).all()
        words = {"i": "signed integers", "u": "unsigned integers", "f": "floats"}
        bits = samples.dtype.itemsize * 8
        form = rf"TIFF of {bits}-bit samples \({words[samples.dtype.kind]}; gray.*--window auto"
        with pytest.raises(ImageRejected, match=form):
            prepare_image(data, ImagePolicy())

    def test_inverted_gray(self, order: str, packed: bool) -> None:
        data = tiff(RAMP, order=order, packed=packed, photometric=[0])
        assert np.abs(shown(data) - (255 - RAMP[..., 0] / 257)).max() <= 0.51

    @pytest.mark.parametrize("dtype", ["uint32", "int16", "float32", "float64"])
    def test_other_forms_are_named(self, order: str, packed: bool, dtype: str) -> None:
        data = tiff(np.zeros((3, 4, 2), dtype), order=order, packed=packed, extra=[2])
        bits = np.dtype(dtype).itemsize * 8
        with pytest.raises(
            ImageRejected, match=f"unreadable: TIFF of {bits}-bit samples"
        ) as caught:
            prepare_image(data, ImagePolicy())
        assert "2 a pixel" in caught.value.detail
        assert " at 0x" not in caught.value.detail


@pytest.mark.parametrize("packed", [False, True])
def test_gray_of_12_bits_is_white_at_its_own_greatest_sample(packed: bool) -> None:
    samples = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    data = tiff(samples, packed=packed, bits=[12])
    assert np.abs(shown(data) - samples / 4095 * 255).max() <= 0.51
    level = shown(data, "1000,2000")  # a window is of the samples as they are
    assert np.abs(level - np.clip(samples / 2000 * 255, 0, 255)).max() <= 0.51


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_bytes_are_named_and_never_taken_for_unsigned_ones(order: str) -> None:
    data = tiff(np.full((3, 4), -5, np.int8), order=order)
    with pytest.raises(ImageRejected, match=r"unreadable: TIFF of 8-bit samples \(signed integers"):
        prepare_image(data, ImagePolicy())
