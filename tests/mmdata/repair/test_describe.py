"""Rows of shards that others made, beside what our own factory knows of the same documents."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import BadInputError
from mmdata.repair.describe import contents_of, describe, layout_of
from tests.shard_factory import described, encode, foreign, make_document, make_image, make_tar


def rows_of(members: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    data = make_tar(members)
    contents = contents_of("a.tar", data)
    rows, tally = describe("a.tar", data, contents, "a.tar")
    assert tally.documents == tally.records == len(rows)
    return rows


def test_a_document() -> None:
    document = make_document(3, images=3)
    (row,) = rows_of([("a.json", encode(foreign(document)))])
    expected = described(document)
    assert row.pop("margin") == pytest.approx(expected.pop("margin"))
    assert {name: row[name] for name in expected} == expected


@given(st.binary(max_size=100))
def test_any_member_has_its_row(raw: bytes) -> None:
    (row,) = rows_of([("a.json", raw)])
    assert row["size"] == len(raw)


def test_images_that_cannot_be_read_leave_empty_columns() -> None:
    document = foreign(make_document(1, images=2))
    document["image_info"][0]["image_base64"] = "*"
    del document["image_info"][1]["matched_text_index"]
    (row,) = rows_of([("a.json", encode(document))])
    assert (row["format"][0], row["width"][0], row["image_bytes"][0]) == ("", 0, 0)
    assert row["matched"][1] == -1
    assert row["margin"] == [None, None]


def test_layouts() -> None:
    for names, layout in ((["a.json"], "interleaved"), (["a.jpg", "a.txt", "a.json"], "pairs")):
        data = make_tar([(name, make_image(1)) for name in names])
        assert layout_of(contents_of("a.tar", data)) == layout


def test_damage_is_refused() -> None:
    data = make_tar([("a.json", b"{}")], fill=False)[:-1200]
    with pytest.raises(BadInputError, match="mmdata repair"):
        contents_of("a.tar", data)
