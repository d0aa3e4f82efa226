"""Placeholders are found in all their spellings and leave no trace in the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.conversations.placeholders import Tag, join_pieces, split_tags


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("<image>", None),
        ("<img>", None),
        ("<IMAGE>", None),
        ("<|image|>", None),
        ("<image_1>", 1),
        ("<image12>", 12),
        ("<image 3>", 3),
        ("<|image_2|>", 2),
        ("<img_0>", 0),
        ("<ImageHere>", None),
        ("<image_placeholder>", None),
    ],
)
def test_a_placeholder_and_the_number_of_its_image(text: str, number: int | None) -> None:
    assert split_tags(f"a {text}b") == ["a ", Tag(number), "b"]


@pytest.mark.parametrize(
    "text",
    ["image", "<image", "< image >", '<img src="a.png">', "<images>", "<image_x>", "<video>"],
)
def test_other_text_is_text(text: str) -> None:
    assert split_tags(text) == [text]


def test_further_placeholders_are_those_of_the_user() -> None:
    assert split_tags("<pic>[IMG]+", ("<pic>", "[IMG]+")) == [Tag(), Tag()]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<image>\nWhat is it?", "\nWhat is it?"),
        ("What is it?\n<image>", "What is it?\n"),
        ("Left: <image> Right: <image>\nBoth.", "Left: Right:\nBoth."),
        ("A\n<image>\nB", "A\nB"),
        ("A<image>B", "AB"),
        ("A <image>B", "A B"),
    ],
)
def test_what_is_left_of_a_text(text: str, rest: str) -> None:
    assert join_pieces([piece for piece in split_tags(text) if isinstance(piece, str)]) == rest


@given(st.lists(st.sampled_from(["<image>", "<|image|>", "a", " ", "\n", "é"]), max_size=12))
def test_no_letter_is_lost(parts: list[str]) -> None:
    texts = [piece for piece in split_tags("".join(parts)) if isinstance(piece, str)]
    letters = "".join(part for part in parts if part in "aé")
    assert "".join(join_pieces(texts).split()) == letters
