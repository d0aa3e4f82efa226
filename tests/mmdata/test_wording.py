"""Numbers of things."""

import pytest

from mmdata.wording import plural


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12345, "12,345 images")],
)
def test_one_is_one(number: int, said: str) -> None:
    assert plural(number, "image") == said


def test_a_plural_that_is_not_made_with_an_s_is_given() -> None:
    assert plural(1, "entry was", "entries were") == "1 entry was"
    assert plural(3, "entry was", "entries were") == "3 entries were"
