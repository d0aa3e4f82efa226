"""Drawings are to scale, stay in their frame, and say in words what they show."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.html import numbers
from mmdata.html.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from mmdata.report.charts import Chart, figure
from mmdata.report.distribution import Distribution, Scale
from mmdata.report.series import series
from mmdata.report.shares import shares

ANY = st.one_of(
    st.tuples(st.just("count"), st.lists(st.integers(0, 5000), min_size=1)),
    st.tuples(st.just("cosine"), st.lists(st.floats(-2, 2), min_size=1)),
    st.tuples(st.just("octave"), st.lists(st.integers(0, 2**45), min_size=1)),
)
FORMATS = {"count": numbers.count, "cosine": numbers.cosine, "octave": numbers.num_bytes}


def drawn(scale: Scale, values: list[float], **more: object) -> ElementTree.Element:
    """The whole figure of some values."""
    distribution = Distribution(scale)
    distribution.add(values)
    given: dict[str, object] = {"values": FORMATS[scale], "ticks": FORMATS[scale]}
    chart = Chart(id="c", title="T", of="images", **(given | more))  # type: ignore[arg-type]
    return ElementTree.fromstring(figure(chart, distribution))


def numbers_of(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


@given(ANY)
def test_bars_are_to_scale_and_inside_the_frame(values: tuple[Scale, list[float]]) -> None:
    made = drawn(*values)
    bars = [bar for bar in made.iter("rect") if bar.attrib["class"].startswith("bar")]
    counts = [int(re.findall(r": ([\d,]+) images", bar[0].text or "")[0]) for bar in bars]
    assert sum(counts) == len(values[1])
    floor = HEIGHT - BOTTOM
    scales = set()
    for bar, count in zip(bars, counts, strict=True):
        x, y, width, height = numbers_of(bar, "x", "y", "width", "height")
        assert x >= LEFT
        assert x + width <= WIDTH - RIGHT + 0.02
        assert y >= TOP - 0.02
        assert y + height == pytest.approx(floor, abs=0.02)
        if height > 5:
            scales.add(round(height / count, 1))
    assert max(scales, default=0) - min(scales, default=0) <= 0.2


@given(ANY)
def test_ticks_are_few_in_order_and_inside(values: tuple[Scale, list[float]]) -> None:
    ticks = [
        float(text.attrib["x"])
        for text in drawn(*values).iter("text")
        if text.attrib["text-anchor"] == "middle"
    ]
    assert 1 <= len(ticks) <= 7
    assert ticks == sorted(ticks)
    assert ticks[0] >= LEFT - 0.02
    assert ticks[-1] <= WIDTH - RIGHT + 0.02


@pytest.mark.parametrize(
    ("scale", "values", "mark"),
    [("cosine", [0.1, 0.4], 0.25), ("octave", [1_000, 16_000], 4_000), ("count", [10, 20], 15)],
)
def test_a_mark_stands_between_what_is_below_and_above(
    scale: Scale, values: list[float], mark: float
) -> None:
    made = drawn(scale, values, mark=(mark, "here"))
    (line,) = [line for line in made.iter("line") if line.attrib["class"] == "mark"]
    bars = [bar for bar in made.iter("rect") if ": 1 images" in (bar[0].text or "")]
    (x,) = numbers_of(line, "x1")
    low, high = [numbers_of(bar, "x", "width") for bar in bars]
    assert low[0] + low[1] < x <= high[0]


def test_a_mark_beyond_the_values_is_not_drawn() -> None:
    made = drawn("cosine", [0.1, 0.2], mark=(0.9, "there"))
    assert not [line for line in made.iter("line") if line.attrib["class"] == "mark"]


def test_the_same_in_words_and_in_a_table() -> None:
    made = drawn("count", [1, 1, 2, 40])
    (svg,) = made.iter("svg")
    assert svg.attrib["aria-label"].startswith("Histogram of 4 images: median 1 · mean 11.0")
    cells = [cell.text for cell in made.iter("td")]
    assert cells[:3] == ["2", "2", "50.0%"]


def test_nothing_is_said_to_be_nothing() -> None:
    assert "No images." in ElementTree.tostring(drawn("count", []), "unicode")
    assert "No images." in shares("s", "T", {"jpeg": 0}, "images")


def test_shares_have_bars_to_scale_the_most_first() -> None:
    made = ElementTree.fromstring(shares("s", "T", {"png": 1, "jpeg": 4, "gif": 0}, "images"))
    widths = [numbers_of(bar, "width")[0] for bar in made.iter("rect")]
    assert widths == [120, 30, 0]
    rows = [head.text for head in made.iter("th")][3:]
    assert rows == ["jpeg", "png", "gif"]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_dots_stand_in_order_and_higher_where_more(values: list[float]) -> None:
    points = [(f"shard {number}", value) for number, value in enumerate(values)]
    made = ElementTree.fromstring(series("s", "T", points, "note"))
    dots = [numbers_of(dot, "cx", "cy") for dot in made.iter("circle")]
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in dots)
    highest = min(range(len(dots)), key=lambda number: dots[number][1])
    assert values[highest] == pytest.approx(max(values), abs=0.02)
