"""Rows of a list of pairs: typed where a pair needs it, carried along where not, never a crash."""

import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.base import RecordDropped
from mmdata.sources.laion_columns import Columns
from mmdata.sources.laion_rows import (
    LaionRow,
    RowFilters,
    carried,
    check_filters,
    document_extras,
    number_of,
    parse_row,
)

COLUMNS = Columns(url="URL", caption="TEXT", similarity="similarity", width="W", height="H")
GOOD = {"URL": "http://example.org/a%20b.jpg?x=1", "TEXT": "a text", "similarity": 0.5}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def parse(**values: Any) -> Any:
    return parse_row(LaionRow(GOOD | values, COLUMNS))


def test_a_row_is_a_document_of_one_text_and_one_image() -> None:
    pair = parse(LICENSE="CC0")
    document = pair.document
    assert (document.text_list, document.matched, document.alignment) == (["a text"], [0], "given")
    assert document.similarity is not None
    assert document.similarity.tolist() == [[0.5]]
    assert (document.images[0].name, pair.url) == ("a b.jpg", GOOD["URL"])
    extras = {name: msgspec.json.decode(raw) for name, raw in document.extras.items()}
    assert extras == {"similarity": 0.5, "LICENSE": "CC0"}


@given(
    st.dictionaries(
        st.sampled_from(["URL", "TEXT", "similarity", "W", "H", "other", "id", "text_list"]), VALUES
    )
)
def test_whatever_stands_in_a_row_it_is_a_pair_or_dropped_with_a_reason(
    values: dict[str, Any],
) -> None:
    filters = RowFilters(min_caption_similarity=0.1, min_size=4, max_aspect=3.0)
    try:
        row = LaionRow(values, COLUMNS)
        document = parse_row(row).document
        check_filters(row, filters)
    except RecordDropped:
        return
    encoded = msgspec.json.encode(document.extras)
    columns = msgspec.json.decode(encoded)
    assert columns.keys() == values.keys() - {"URL", "TEXT"}
    told = msgspec.json.decode(msgspec.json.encode(document_extras(document)))
    text_list = columns.pop("text_list", None)
    assert told.pop("source_text_list", None) == (
        None if text_list == document.text_list else text_list
    )
    assert told == columns
    document.text_list[0].encode("utf-8")


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), ("0.25", 0.25), (" 3 ", 3.0), (msgspec.Raw(b"0.5"), 0.5), (True, None), ("x", None),
     (None, None), (float("nan"), None), ("inf", None), (10**400, None), ([1], None)],
)  # fmt: skip
def test_numbers(value: Any, number: float | None) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), "2020-01-02T00:00:00Z"),
        (float("nan"), None),
        (b"\x00\xff", "AP8="),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        (object, repr(object)),
        ("\ud800", repr("\ud800")),
    ],
)
def test_other_columns_become_json(value: Any, shown: Any) -> None:
    raw = parse(other=value).document.extras["other"]
    assert msgspec.json.decode(raw) == shown


@pytest.mark.parametrize("url", ["http://[::1", "http://x/" + "y" * 500, "http://x/%00%ff", ""])
def test_names_are_for_people(url: str) -> None:
    row = LaionRow(GOOD | {"URL": url}, COLUMNS, b"image", has_image=True)
    name = parse_row(row).document.images[0].name
    assert len(name) <= 200
    assert "\0" not in name


def raw(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": 7, "word": "x"}, {"id": 7, "word": "x"}),
        ({"width": 48}, {}),
        ({"width": "48"}, {}),
        ({"width": 47}, {"source_width": 47}),
        ({"width": None}, {}),
        ({"url": "http://page"}, {"source_url": "http://page"}),
        ({"url": "page", "source_url": 1}, {"source_source_url": "page", "source_url": 1}),
    ],
)  # fmt: skip
def test_a_column_with_the_name_of_a_field_of_the_sample(
    columns: dict[str, Any], told: dict[str, Any]
) -> None:
    """It is carried along under another name, where it says something else."""
    found = carried(raw(**columns), {"width": 48, "url": "http://picture"})
    assert {name: msgspec.json.decode(value) for name, value in found.items()} == told


def test_a_document_promises_types_that_a_column_may_not_have() -> None:
    extras = document_extras(parse(url=7, could_have_url_duplicate="1", id=3, roles="x").document)
    assert {"source_url", "source_could_have_url_duplicate", "id", "source_roles"} <= set(extras)
    extras = document_extras(parse(url="http://page", could_have_url_duplicate=1).document)
    assert {"url", "could_have_url_duplicate"} <= set(extras)
