"""The k-th placeholder is the k-th image, and goes with the text that follows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.base import RecordDropped, RecordError, SourceImage
from mmdata.sources.conversations.placeholders import split_tags
from mmdata.sources.conversations.placing import OnTagMismatch, Placed, Utterance, place


def placed(
    *turns: str, images: int, on_mismatch: OnTagMismatch = "first-turn", first: str = "human"
) -> Placed:
    """Turns of human and gpt in turn, with images `0`, `1`…"""
    roles = [first, "gpt", "human", "gpt", "human"]
    said = [Utterance(role, [*split_tags(t)]) for role, t in zip(roles, turns, strict=False)]
    return place(said, [SourceImage(str(n), {}) for n in range(images)], on_mismatch)


@pytest.mark.parametrize(
    ("turns", "matched"),
    [
        (["<image>\nWhat is it?", "A slice."], [0]),
        (["What is it?\n<image>", "A slice."], [1]),
        (["<image>", "A slice."], [1]),
        (["<image><image>\nWhich?", "The first."], [0, 0]),
        (["A: <image> B: <image>\nWhich?", "A."], [0, 0]),
        (["A: <image> B: <image>", "A."], [0, 1]),
        (["<image>\nThis?", "Yes.", "And this?\n<image>", "No."], [0, 3]),
        (["One?", "Yes. <image>"], [1]),
        (["<image>", "<image>", "What?"], [2, 2]),
    ],
)
def test_where_images_go(turns: list[str], matched: list[int]) -> None:
    found = placed(*turns, images=len(matched))
    assert found.matched == matched
    assert not any("<image>" in text for text in found.texts)


def test_a_tag_last_goes_to_the_next_turn_and_first_to_its_own() -> None:
    """As in ADNI's records."""
    assert placed("What?\n<image>", "It is.", images=1).texts == ["What?", "It is."]
    assert placed("<image>\nWhat?", "It is.", images=1).texts == ["What?", "It is."]


@pytest.mark.parametrize(
    ("turns", "images", "matched", "note"),
    [
        (["What?", "It."], 2, [0, 0], "no-tags"),
        (["What?\n<image>", "It.", "More?", "No."], 3, [1, 1, 1], "fewer-tags-than-images"),
        (["<image><image><image>\nWhat?", "It."], 1, [0], "more-tags-than-images"),
        (["<image>\nWhat?", "It."], 0, [], "more-tags-than-images"),
        (["What?", "<image>\nIt."], 1, [1], "tag-in-answer"),
    ],
)
def test_each_mismatch_has_its_way_and_its_note(
    turns: list[str], images: int, matched: list[int], note: str
) -> None:
    found = placed(*turns, images=images)
    assert found.matched == matched
    assert [name for name, _ in found.notes] == [note]
    assert not any("<image>" in text for text in found.texts)
    with pytest.raises(RecordDropped, match=f"tag-mismatch: {note}"):
        placed(*turns, images=images, on_mismatch="drop")
    with pytest.raises(RecordError, match=note):
        placed(*turns, images=images, on_mismatch="error")


@pytest.mark.parametrize("answer", ["See <image>.", "In HTML: <img>logo.png</img>", "<image_1>"])
@pytest.mark.parametrize("images", [0, 2])
def test_words_like_tags_in_an_answer_stay_where_the_questions_tags_are_all_images(
    answer: str, images: int
) -> None:
    tag = "<image>" if images else ""
    found = placed(f"{tag}\nWhat?", answer, f"And {tag} this?", images=images)
    assert found.matched == [0, 2][:images]
    assert (found.texts[1], found.notes) == (answer, [])


def test_what_the_system_says_of_tags_is_words_too() -> None:
    found = placed("Pictures are <image>.", "Yes.", "<image>\nWhat?", images=1, first="system")
    assert (found.texts[0], found.matched, found.notes) == ("Pictures are <image>.", [2], [])


def test_tags_in_answers_are_places_where_the_questions_have_too_few() -> None:
    found = placed("<image>\nWhat?", "See <image>.", "And this?", images=2)
    assert (found.matched, found.texts[1]) == ([0, 1], "See .")
    assert [name for name, _ in found.notes] == ["tag-in-answer"]


def test_without_tags_images_do_not_go_to_the_system() -> None:
    assert placed("Be brief.", "Hello.", "What?", images=1, first="system").matched == [1]


def test_numbers_name_images_where_every_tag_has_one() -> None:
    assert placed("<image_2>\nWhat?", "It.", "<image_1> And?", images=2).matched == [2, 0]
    assert placed("<image_0>\nWhat?", "It.", "<image_1> And?", images=2).matched == [0, 2]
    assert placed("<image_7>\nWhat?", "It.", images=1).matched == [0]
    twice = placed("<image_1>\nWhat?", "It.", "Is <image_1> so?", images=1)
    assert (twice.matched, twice.notes[0][0]) == ([0], "more-tags-than-images")
    one = placed("<image_1>\nWhat?", "It.", "<image_1> again?", images=2)
    assert (one.matched, one.notes[0][0]) == ([0, 0], "fewer-tags-than-images")


def test_a_tag_that_only_another_tags_end_makes_is_none() -> None:
    found = placed("<ima<image>ge> What?", "It.", images=1)
    assert found.texts[0] == "<ima ge> What?"


def test_turns_without_text_are_no_document() -> None:
    with pytest.raises(RecordDropped, match="no-text"):
        placed("<image>", " ", images=1)


@given(
    st.lists(
        st.sampled_from(["<image>", "a", "<image> b", "c <image>", ""]), min_size=1, max_size=5
    ),
    st.integers(0, 6),
)
def test_every_image_has_a_turn_with_text(turns: list[str], images: int) -> None:
    if not any("a" in turn.replace("<image>", "") or turn[-1:] == "b" or turn[:1] == "c"
               for turn in turns):  # fmt: skip
        return
    found = placed(*turns, images=images)
    assert len(found.texts) == len(turns)
    assert len(found.matched) == images
    assert all(found.texts[index].strip() for index in found.matched)
