"""Numbers as people read them."""

import pytest

from mmdata.html import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (5.8e6, "5.8 MB"),
        (999_960, "1 MB"),
        (2.5e15, "2.5 PB"),
        (123_456, "123 kB"),
    ],
)
def test_bytes(value: float, shown: str) -> None:
    assert numbers.num_bytes(value).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "\u2013"),
        (0, 5, "0%"),
        (5, 5, "100%"),
        (1, 3, "33.3%"),
        (1, 100_000, "<0.1%"),
        (99_999, 100_000, ">99.9%"),
    ],
)
def test_a_share_is_never_nothing_of_something(part: int, whole: int, shown: str) -> None:
    assert numbers.share(part, whole) == shown


def test_separators_signs_and_plurals() -> None:
    assert numbers.count(1_234_567) == "1,234,567"
    assert numbers.cosine(-0.12345) == "\u22120.123"
    assert numbers.compact(12_300) == "12.3k"
    assert [numbers.plural(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
