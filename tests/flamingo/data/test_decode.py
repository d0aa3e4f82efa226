"""Pixels: open_clip's evaluation transform, bombs refused, damage noticed."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.make_corpus import photographs
from benchmarks.resize import mosaic
from flamingo.data.decode import UndecodableError, decode_image, to_input
from tests.conftest import ROOT
from tests.shard_factory import make_image

SIZE = 32
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def reference(data: bytes, size: int = SIZE) -> torch.Tensor:
    """torchvision's Resize and CenterCrop, as open_clip puts them together."""
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    image = Image.open(io.BytesIO(data)).convert("RGB")
    cropped = CenterCrop(size)(Resize(size, interpolation=InterpolationMode.BICUBIC)(image))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)


def smooth(width: int, height: int, kind: str = "PNG", mode: str = "RGB", **save: object) -> bytes:
    """A picture without noise, whose left and right, top and bottom differ."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(sink, kind, **save)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("width", "height"), [(32, 32), (33, 32), (64, 37), (37, 64), (20, 50), (5, 7), (100, 101)]
)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pixels_are_the_transforms(width: int, height: int, kind: str) -> None:
    data = make_image(1, width=width, height=height, kind=kind)
    pixels = decode_image(data, SIZE)
    assert pixels.shape == (3, SIZE, SIZE)
    assert pixels.dtype == torch.uint8
    difference = (pixels.int() - reference(data).int()).abs()
    assert int(difference.max()) <= 2


@pytest.mark.parametrize(("width", "height"), [(200, 40), (40, 200)])
def test_long_images_are_nearly_so(width: int, height: int) -> None:
    data = smooth(width, height)
    assert int((decode_image(data, SIZE).int() - reference(data).int()).abs().max()) <= 1


def test_one_pixel_by_very_many_stays_small() -> None:
    assert decode_image(smooth(1, 30_000), SIZE).shape == (3, SIZE, SIZE)


@pytest.mark.parametrize(("width", "height"), [(401, 270), (270, 401), (255, 256)])
def test_large_jpegs_are_reduced_in_place(width: int, height: int) -> None:
    data = smooth(width, height, "JPEG", quality=95)
    difference = (decode_image(data, SIZE).int() - reference(data).int()).abs().float()
    assert difference.max() <= 4
    assert difference.mean() < 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_colours(mode: str) -> None:
    data = smooth(48, 40, "JPEG", mode)
    assert int((decode_image(data, SIZE).int() - reference(data).int()).abs().max()) <= 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        make_image(0)[:300],
        make_image(0, kind="png")[:100],
        b"\xff\xd8\xff",
        b"GIF89a",
    ],
    ids=["empty", "text", "cut-jpeg", "cut-png", "start-only", "gif-header"],
)
def test_damage_is_noticed(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode_image(data, SIZE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_bombs_are_refused_by_their_header(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flamingo.data.decode.MAX_PIXELS", 99)
    with pytest.raises(UndecodableError, match="10 x 10 pixels: expected at most 99"):
        decode_image(smooth(10, 10, kind), SIZE)


def test_stray_bytes_in_a_jpeg_are_no_damage() -> None:
    data = smooth(40, 40, "JPEG")
    assert decode_image(data[:-2] + bytes(9) + data[-2:], SIZE).shape == (3, SIZE, SIZE)


@given(
    width=st.integers(8, 160),
    height=st.integers(8, 160),
    size=st.sampled_from([8, 32, 57]),
    kind=st.sampled_from(["png", "jpeg", "webp"]),
    seed=st.integers(0, 3),
)
def test_exact_pixels_are_the_transforms_bit_for_bit(
    width: int, height: int, size: int, kind: str, seed: int
) -> None:
    data = make_image(seed, width=width, height=height, kind=kind)
    assert torch.equal(decode_image(data, size, exact=True), reference(data, size))


@given(width=st.integers(8, 127), height=st.integers(8, 127), seed=st.integers(0, 3))
def test_pixels_of_images_that_are_not_reduced_are_two_levels_off_at_most(
    width: int, height: int, seed: int
) -> None:
    if max(width, height) > 4 * min(width, height):
        width = height
    data = make_image(seed, width=width, height=height, kind="jpeg")
    difference = (decode_image(data, SIZE).int() - reference(data).int()).abs()
    assert int(difference.max()) <= 2


@pytest.mark.parametrize("quality", [75, 92])
def test_photographs_of_many_megapixels_are_under_a_level_off_on_average(quality: int) -> None:
    sink = io.BytesIO()
    pictures = photographs(ROOT / "examples" / "mmc4")
    mosaic(pictures, quality).resize((2400, 1800)).save(sink, "JPEG", quality=quality)
    data = sink.getvalue()
    difference = (decode_image(data, 224).int() - reference(data, 224).int()).abs().float()
    assert 0 < difference.mean() < 1


def test_the_towers_input_is_open_clips_own_bit_for_bit() -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size=SIZE, mean=MEAN, std=STD, interpolation="bicubic")
    whole = image_transform_v2(config, is_train=False)
    data = [make_image(seed, width=90, height=70, kind="jpeg") for seed in range(3)]
    pixels = torch.stack([decode_image(one, SIZE, exact=True) for one in data])
    expected = torch.stack([whole(Image.open(io.BytesIO(one))) for one in data])
    assert torch.equal(to_input(pixels, MEAN, STD, exact=True), expected)
    torch.testing.assert_close(to_input(pixels, MEAN, STD), expected, rtol=0, atol=2e-6)


def test_only_the_images_that_are_to_be_are_mirrored() -> None:
    pixels = torch.stack([decode_image(smooth(64, 37), SIZE)] * 3)
    mirrored = torch.tensor([False, True, False])
    found = to_input(pixels, MEAN, STD, mirrored=mirrored)
    plain = to_input(pixels, MEAN, STD)
    assert torch.equal(found[1], plain[1].flip(-1))
    assert not torch.equal(found[1], plain[1])
    assert torch.equal(found[::2], plain[::2])
