"""The flow: bands are as tall as what they stand for, and no reason is lost."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.report.flow import Stage, flow, in_words

REASONS = st.dictionaries(st.sampled_from([f"reason-{n}" for n in range(12)]), st.integers(1, 999))


def drawings(stages: list[Stage]) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(flow(stages, "images")).iter("svg"))


def way(first: dict[str, int], second: dict[str, int], used: int) -> list[Stage]:
    """Three stages that add up."""
    shards = used + sum(second.values())
    return [
        Stage("listed", shards + sum(first.values()), first),
        Stage("in the shards", shards, second),
        Stage("used", used, {}),
    ]


@given(REASONS, REASONS, st.integers(0, 5000))
def test_every_band_is_counted_once_in_both_drawings(
    first: dict[str, int], second: dict[str, int], used: int
) -> None:
    stages = way(first, second, used)
    for drawing in drawings(stages):
        lost = 0
        for path in drawing.iter("path"):
            size = int(re.match(r"[\d,]+", path[0].text or "")[0].replace(",", ""))  # type: ignore[index]
            lost += size if path.attrib["class"] == "dropped" else 0
        assert lost == sum(first.values()) + sum(second.values())
        assert drawing.attrib["aria-label"] == in_words(stages, "images")


@given(REASONS, REASONS, st.integers(1, 5000))
def test_nothing_is_drawn_outside(first: dict[str, int], second: dict[str, int], used: int) -> None:
    for drawing in drawings(way(first, second, used)):
        _, _, width, height = map(float, drawing.attrib["viewBox"].split())
        for shape in drawing.iter("rect"):
            assert float(shape.attrib["x"]) + float(shape.attrib["width"]) <= width + 0.1
            assert float(shape.attrib["y"]) + float(shape.attrib["height"]) <= height + 0.1
        for label in drawing.iter("text"):
            assert 0 < float(label.attrib["y"]) <= height


def test_bars_are_to_scale() -> None:
    wide, _ = drawings(way({"missing": 100}, {"surplus": 50}, 50))
    bars = [bar for bar in wide.iter("rect") if bar.attrib["class"] == "stage"]
    first, second, third = [float(bar.attrib["height"]) for bar in bars]
    assert (second / first, third / first) == (pytest.approx(0.5), pytest.approx(0.25))


def test_labels_of_reasons_do_not_touch_each_other() -> None:
    reasons = {f"reason-{number}": 1 for number in range(7)}
    for drawing in drawings(way(reasons, reasons, 10_000)):
        places = [
            (float(label.attrib["x"]), float(label.attrib["y"]))
            for label in drawing.iter("text")
            if label.attrib["class"] == "drop"
        ]
        for x in {x for x, _ in places}:
            column = sorted(y for at, y in places if at == x)
            gaps = [low - high for high, low in pairwise(column)]
            assert min(gaps) >= 17


def test_many_reasons_are_joined_in_the_drawing() -> None:
    wide, _ = drawings(way({f"reason-{n}": 100 - n for n in range(10)}, {}, 100))
    text = "".join(wide.itertext())
    assert "4 other reasons" in text
    assert "reason-5" in text
    assert "reason-6" not in text


def test_in_words() -> None:
    stages = way({"missing": 6}, {"surplus": 10}, 127)
    assert in_words(stages, "images") == (
        "143 images: listed; 6 dropped, 137 in the shards; 10 dropped, 127 used"
    )
