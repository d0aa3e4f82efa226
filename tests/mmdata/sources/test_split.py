"""A group is in one split, whatever comes before it, and shares come out as asked."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.base import SourceDocument, SourceImage
from mmdata.sources.split import Grouping, group_of, make_rules


def document(url: str = "", **extras: Any) -> SourceDocument:
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in extras.items()}
    images = [SourceImage("a", {"raw_url": msgspec.Raw(msgspec.json.encode(url))})] if url else []
    made = SourceDocument(["a text"], images, None, "placeholder", "given", fields)
    return Grouping("id", b"a key").document(made, fields)


@pytest.mark.parametrize(
    ("given_document", "by", "group"),
    [
        (document(id="p1"), "id", "p1"),
        (document(id=7), "id", "7"),
        (document(id=None), "id", None),
        (document(), "id", None),
        (document(meta={"subject": {"name": "x"}}), "meta.subject.name", "x"),
        (document(meta=[1]), "meta.subject", None),
        (document(extra={"a": 1}), "extra", '{"a":1}'),
        (document(id=17.0), "id", "17"),
        (document(id=0.5), "id", "0.5"),
        (document(id=float("nan")), "id", None),
        (document(id=" "), "id", None),
        (document(**{"meta.subject": "flat", "meta": {"subject": "x"}}), "meta.subject", "flat"),
        (document(**{"a.b": {"c.d": "x"}}), "a.b.c.d", "x"),
        (document(url="http://images.example.org/1.jpg"), "url-host", "images.example.org"),
        (document(url="no url"), "url-host", None),
    ],
)
def test_the_group_of_a_document(given_document: SourceDocument, by: str, group: str) -> None:
    assert group_of(given_document, given_document.extras, by) == group


def test_the_page_s_own_host_comes_first() -> None:
    fields = {"url": msgspec.Raw(b'"https://PAGE.example.org/x"')}
    page = SourceDocument(["t"], [], None, "mmc4", "assigned", fields)
    assert group_of(page, {}, "url-host") == "page.example.org"


@given(st.text(max_size=20), st.integers(0, 3))
def test_every_group_is_in_exactly_one_split(name: str, seed: int) -> None:
    rules = make_rules({"train": 0.7, "val": 0.2, "test": 0.1}, "id", seed)
    assert sum(rule.holds(document(id=name)) for rule in rules) == 1


def test_shares_and_seeds() -> None:
    names = [document(id=f"patient-{number}") for number in range(4000)]
    taken = {}
    for seed in (0, 1):
        train, val = make_rules({"train": 0.9, "val": 0.1}, "id", seed)
        taken[seed] = [val.holds(one) for one in names]
        assert 340 < sum(taken[seed]) < 460
        assert all(
            train.holds(one) != inside for one, inside in zip(names, taken[seed], strict=True)
        )
    assert taken[0] != taken[1]


def test_a_document_without_a_group_goes_by_its_text() -> None:
    rules = make_rules({"a": 0.5, "b": 0.5}, "id", 0)
    sides = set()
    for number in range(40):
        one = SourceDocument([f"text {number}"], [], None, "placeholder", "given", {})
        sides.add(tuple(rule.holds(one) for rule in rules))
    assert sides == {(True, False), (False, True)}
