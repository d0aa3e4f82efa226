"""JPEGs decoded at a reduced scale: the picture and nothing of what fills its last blocks."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flamingo.data.decode import decode_image
from mmdata.images import ImagePolicy, prepare_image
from mmdata.images.reduced import EIGHTHS, HALVINGS, decode_jpeg, scale_of
from mmdata.report.thumbnails import thumbnail
from mmdata.show.preview import half_blocks
from tests.mmdata.images.padded import padded_jpeg


@given(
    full=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    at_least=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
    eighths=st.sampled_from([EIGHTHS, HALVINGS]),
)
def test_a_scale_is_the_smallest_that_leaves_enough(
    full: tuple[int, int], at_least: tuple[int, int], eighths: tuple[int, ...]
) -> None:
    scale = scale_of(full, at_least, eighths)
    assert scale.box == tuple(side * scale.eighths / 8 for side in full)
    assert all(0 <= size - end < 1 for size, end in zip(scale.size, scale.box, strict=True))
    assert all(end >= 1 for end in scale.box)
    if scale.eighths < 8:
        assert all(size >= least for size, least in zip(scale.size, at_least, strict=True))
    for smaller in (k for k in eighths if k < scale.eighths and max(full) >= 8):
        sides = [-(-side * smaller // 8) for side in full]
        too_small = any(side < least for side, least in zip(sides, at_least, strict=True))
        assert too_small or min(full) * smaller < 8


@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    at_least=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_the_codec_gives_the_scale_that_was_chosen(
    width: int, height: int, at_least: tuple[int, int]
) -> None:
    data = padded_jpeg(width, height)
    pixels, box = decode_jpeg(data, (width, height), at_least, "RGB", strict=True)
    scale = scale_of((width, height), at_least)
    assert (pixels.shape[1::-1], box) == (scale.size, scale.box)
    if scale.eighths in (1, 2, 4):  # averages of pixels; the others ring beside a hard edge
        assert pixels.min() >= 245


WHITE = [(2017, 2017), (2017, 1003), (1009, 2015), (1024, 1001), (1999, 17)]


@pytest.mark.parametrize("size", WHITE)
@pytest.mark.parametrize("kind", ["baseline", "progressive", "cmyk"])
@pytest.mark.parametrize("policy", [{}, {"verify": "header"}, {"verify": "full"}])
def test_a_white_picture_stays_white(
    size: tuple[int, int], kind: str, policy: dict[str, str]
) -> None:
    data = padded_jpeg(*size, kind=kind)
    prepared = prepare_image(data, ImagePolicy(max_side=200, **policy))  # type: ignore[arg-type]
    assert np.asarray(Image.open(BytesIO(prepared.data))).min() >= 252


@pytest.mark.parametrize("size", WHITE)
def test_a_white_picture_stays_white_wherever_it_is_shown(size: tuple[int, int]) -> None:
    data = padded_jpeg(*size)
    small = Image.open(BytesIO(thumbnail(data).data))
    assert np.asarray(small).min() >= 250
    for cell in half_blocks(data, columns=60, rows=30).spans:
        for colour in (cell.style.color, cell.style.bgcolor):  # type: ignore[union-attr]
            assert colour is not None
            assert min(colour.get_truecolor()) >= 250


@pytest.mark.parametrize("size", WHITE)
@pytest.mark.parametrize("side", [32, 112, 224])
def test_a_white_picture_stays_white_in_training(size: tuple[int, int], side: int) -> None:
    assert int(decode_image(padded_jpeg(*size), side).min()) >= 250


@pytest.mark.parametrize("columns", range(1000, 1008))
def test_a_picture_stays_in_its_place(columns: int) -> None:
    """Resized from the reduced scale it is what it would be from the full one: no shift."""
    y, x = np.mgrid[0:701, 0:columns]
    waves = 128 + 100 * np.sin(x / 25) * np.cos(y / 19)
    out = BytesIO()
    Image.fromarray(waves.astype(np.uint8)).save(out, "JPEG", quality=97)
    full = Image.open(out)
    for side in (100, 150, 336):
        policy = ImagePolicy(max_side=side, quality=98)
        small = Image.open(BytesIO(prepare_image(out.getvalue(), policy).data))
        wanted = full.resize(small.size, Image.Resampling.LANCZOS)
        difference = np.asarray(small, np.float64) - np.asarray(wanted)
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 40
    exact = decode_image(out.getvalue(), 64, exact=True).float()
    assert (decode_image(out.getvalue(), 64).float() - exact).abs().mean() < 1


@pytest.mark.parametrize("side", [100, 200, 256])
def test_a_photograph_is_as_if_resized_from_the_full_scale(
    photo: Callable[[str], bytes], side: int
) -> None:
    data = photo("scikitimag__rocket.jpg")
    full = Image.open(BytesIO(data)).convert("RGB")
    pixels, box = decode_jpeg(data, full.size, (side * 5 // 4,) * 2, "RGB", strict=True)
    height = round(full.height * side / full.width)
    lanczos = Image.Resampling.LANCZOS
    small = Image.fromarray(pixels).resize((side, height), lanczos, box=(0, 0, *box))
    wanted = np.asarray(full.resize((side, height), lanczos), np.float64)
    assert 10 * np.log10(255**2 / ((np.asarray(small) - wanted) ** 2).mean()) > 42
