"""Names that a record tells of itself: found in every spelling, and words left alone."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.told_names import (
    NameFinder,
    Told,
    ids_of,
    is_id_field,
    may_name_a_person,
    parts_of_name,
)


def hidden(text: str, *told: Told) -> str:
    return NameFinder(told, lambda name: f"<{name}>").hide(text)


@pytest.mark.parametrize(
    "spelling",
    ["001_S_1003", "001-S-1003", "001S1003", "001s1003", "001.S.1003", "001/S/1003", "001 S 1003",
     "001_S-1003", "001\u2011S\u20111003", "001 \u2013 S\u22121003"],
)  # fmt: skip
def test_every_spelling_of_an_id_is_found(spelling: str) -> None:
    for told in ("001_S_1003", "001S1003", "001-s-1003"):
        assert hidden(f"MRI of {spelling}.", Told(told)) == f"MRI of <{told}>."
        assert hidden(f"sub_{spelling}_T1", Told(told)) == f"sub_<{told}>_T1"
        for longer in (f"x{spelling}", f"{spelling}4", f"{spelling}b"):
            assert hidden(longer, Told(told)) == longer


@pytest.mark.parametrize("told", ["3", "17", "left", "abc", "smith", "two words"])
def test_what_may_be_a_word_is_left_and_that_is_known(told: str) -> None:
    text = f"seen {told} times"
    finder = NameFinder([Told(told)], str.upper)
    assert finder.hide(text) == text
    assert finder.leaves_in([text])
    assert not finder.leaves_in([f"seenx{told}x times"])


def test_an_id_inside_a_longer_word_is_left_and_that_is_known() -> None:
    finder = NameFinder([Told("001_S_1003"), Told("v1000"), *parts_of_name("slice_1000.png")], str)
    for text in ("pt001_S_1003", "seen in x001s1003y, as 001_S_1003 was"):
        assert finder.leaves_in([text])
    for text in ("001-S-1003, sub_001_S_1003_T1", "v10001", "slice_10001", "001_S 1003"):
        assert not finder.leaves_in([text])


def test_a_field_that_the_user_named_may_hold_a_person_s_name() -> None:
    assert hidden("Seen: DOE, JOHN and doe_john.", Told("Doe^John", named=True)) == (
        "Seen: <Doe^John> and <Doe^John>."
    )
    assert hidden("Smith", Told("Smith", named=True)) == "Smith"


def test_parts_of_a_picture_s_name_are_no_words() -> None:
    parts = list(parts_of_name("ward/slice_10.png"))
    assert hidden("slice 10 of the ward, slice_10.png, SLICE-10", *parts) == (
        "slice 10 of the ward, <slice_10.png>, <slice_10>"
    )


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("id", True), ("patient_id", True), ("patientId", True), ("PatientID", True), ("mrn", True),
     ("StudyInstanceUID", True), ("patientid", True), ("Patient", True), ("subject", True),
     ("valid", False), ("grid", False), ("paid", False), ("id_type", False), ("identity", False)],
)  # fmt: skip
def test_fields_of_ids(name: str, is_one: bool) -> None:
    assert is_id_field(name) is is_one


def test_ids_are_found_wherever_they_are() -> None:
    record: dict[str, Any] = {
        "id": 1003, "meta": {"subject_id": "S_01", "deep": [{"mrn": ["m-1", "m-2"]}]},
        "site": "north", "who": {"name": "Doe^John"}, "kept_id": "k-1", "valid": True,
    }  # fmt: skip
    found = {(told.text, told.named) for told in ids_of(record, ("who.name",), ("kept_id",))}
    assert found == {
        ("1003", False), ("S_01", False), ("m-1", False), ("m-2", False), ("Doe^John", True)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "may"),
    [("Seen by Dr. Müller", True), ("John Smith came.", True), ("Doe^John", True),
     ("The Brain is shown.", False), ("MRI of the brain.", False), ("No find. Then more.", False)],
)  # fmt: skip
def test_a_plain_guess_at_persons(text: str, may: bool) -> None:
    assert may_name_a_person(text) is may


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=40))
def test_no_name_and_no_text_is_too_odd(names: list[str], text: str) -> None:
    """No name stands in a text by itself afterwards."""
    finder = NameFinder(map(Told, names), lambda name: "#")
    left = finder.hide(" ".join([text, *names]))
    for name in (name for name in names if Told(name).is_name):
        assert not re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", left) or "#" in name


def test_letters_that_only_patterns_take_for_the_same() -> None:
    dotless = "scan_1\N{LATIN SMALL LETTER DOTLESS I}00"
    assert hidden(dotless, Told("scan_1i00")) == f"<{dotless}>"
