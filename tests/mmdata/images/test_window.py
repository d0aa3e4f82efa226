"""Windows: what a scanner filled of its range becomes black to white, and it is said how."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmdata.images import ImagePolicy, ImageRejected, prepare_image
from mmdata.images.window import apply_window, choose_window, parse_window

AUTO = ImagePolicy(window="auto")


def encoded(samples: NDArray[Any], kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(samples).save(sink, kind)
    return sink.getvalue()


def slice_of(top: int) -> NDArray[np.uint16]:
    """A slice that fills 0 to `top`, with a hot pixel."""
    rng = np.random.default_rng(0)
    samples = rng.integers(0, top, (64, 64)).astype(np.uint16)
    samples[0, 0] = 65535
    return samples


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("top", [300, 4096, 65535])
def test_auto_fills_the_range_of_any_scanner(kind: str, top: int) -> None:
    prepared = prepare_image(encoded(slice_of(top), kind), AUTO)
    gray = np.asarray(Image.open(io.BytesIO(prepared.data)))
    assert gray.dtype == np.uint8
    assert gray.std() > 60
    assert (gray == 255).mean() < 0.02
    assert (gray == 0).mean() < 0.02
    assert prepared.window is not None
    assert (prepared.window.by, prepared.format) == ("auto", "png")
    assert 0 <= prepared.window.low < prepared.window.high <= top
    assert "windowed" in prepared.notes


def test_a_given_window_is_level_and_width() -> None:
    samples = np.array([[0, 1000, 1100, 1200, 65535]], np.uint16)
    prepared = prepare_image(encoded(samples), ImagePolicy(window="1100,200"))
    assert np.asarray(Image.open(io.BytesIO(prepared.data))).tolist() == [[0, 0, 128, 255, 255]]
    assert prepared.window is not None
    assert (prepared.window.low, prepared.window.high) == (1000, 1200)
    assert prepared.window.by == "given"


def test_full_is_the_whole_range_and_is_not_recorded() -> None:
    prepared = prepare_image(encoded(np.array([[0, 257, 65535]], np.uint16)), ImagePolicy())
    assert np.asarray(Image.open(io.BytesIO(prepared.data))).tolist() == [[0, 1, 255]]
    assert prepared.window is None


def test_samples_that_are_flat_between_the_percentiles_go_by_least_and_greatest() -> None:
    samples = np.zeros((64, 64), np.uint16)
    samples[0, :4] = 500
    window = choose_window(samples, "auto")
    assert (window.low, window.high) == (0, 500)


def test_a_flat_image_is_gray_not_white() -> None:
    prepared = prepare_image(encoded(np.full((8, 8), 40_000, np.uint16)), AUTO)
    assert set(np.asarray(Image.open(io.BytesIO(prepared.data))).ravel().tolist()) == {128}


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_window_gives_32_bits_the_range_that_they_lack(dtype: type) -> None:
    samples = np.linspace(-1000, 3000, 4096).reshape(64, 64).astype(dtype)
    with pytest.raises(ImageRejected, match="32-bit samples"):
        prepare_image(encoded(samples, "TIFF"), ImagePolicy())
    gray = np.asarray(Image.open(io.BytesIO(prepare_image(encoded(samples, "TIFF"), AUTO).data)))
    assert gray[0, 0] == 0
    assert gray[-1, -1] == 255
    assert (np.diff(gray.ravel().astype(int)) >= 0).all()


def test_what_is_no_number_is_black_and_an_image_of_nothing_else_unreadable() -> None:
    samples = np.array([[np.nan, 0.0, 1.0, np.inf]], np.float32)
    window = choose_window(samples, "0.5,1")
    assert apply_window(samples, window).tolist() == [[0, 0, 255, 255]]
    with pytest.raises(ImageRejected, match="no sample is a finite number"):
        choose_window(np.full((2, 2), np.nan, np.float32), "auto")


def test_8_bits_pass_through_untouched() -> None:
    data = encoded(np.arange(64, dtype=np.uint8).reshape(8, 8))
    prepared = prepare_image(data, AUTO)
    assert (prepared.data, prepared.window) == (data, None)


@pytest.mark.parametrize("text", ["5", "5,0", "5,-1", "nan,1", "a,b", ""])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|float"):
        parse_window(text)
