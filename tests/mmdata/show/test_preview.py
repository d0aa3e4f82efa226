"""Half blocks: the right colours at the right places, bounded, and no picture that can do harm."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.text import Text

from mmdata.images import ImageRejected
from mmdata.show.preview import half_blocks

IMAGES = Path(__file__).parents[2] / "assets" / "images"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def png(size: tuple[int, int], pixels: list[tuple[int, int, int]]) -> bytes:
    image = Image.new("RGB", size)
    image.putdata(pixels)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def cells(text: Text) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(upper, lower) colour of each character, in order."""
    found = []
    for span in text.spans:
        style = span.style
        assert not isinstance(style, str)
        assert style.color is not None
        assert style.bgcolor is not None
        pair = [colour.get_truecolor() for colour in (style.color, style.bgcolor)]
        found.append((tuple(pair[0]), tuple(pair[1])))
    return found


def test_a_character_is_two_pixels() -> None:
    text = half_blocks(png((2, 2), [RED, GREEN, BLUE, WHITE]), columns=10, rows=10)
    assert text.plain == "▀▀"
    assert cells(text) == [(RED, BLUE), (GREEN, WHITE)]


def test_an_odd_height_repeats_the_last_line() -> None:
    text = half_blocks(png((1, 3), [RED, GREEN, BLUE]), columns=10, rows=10)
    assert text.plain == "▀\n▀"
    assert cells(text) == [(RED, GREEN), (BLUE, BLUE)]


@pytest.mark.parametrize(("size", "expected"), [((400, 100), (20, 3)), ((100, 400), (4, 8))])
def test_it_fits_and_keeps_its_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    text = half_blocks(png(size, [RED] * size[0] * size[1]), columns=20, rows=8)
    lines = text.plain.split("\n")
    assert (len(lines[0]), len(lines)) == expected


@pytest.mark.parametrize("data", [b"", b"<html>", png((3, 3), [RED] * 9)[:60]])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRejected):
        half_blocks(data, columns=10, rows=10)
