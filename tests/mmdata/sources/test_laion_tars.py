"""Pairs in tars as a list of images: what their names make of them."""

from pathlib import Path

import pytest

from mmdata.errors import BadInputError
from mmdata.sources.base import RecordDropped
from mmdata.sources.laion_columns import ColumnNames
from mmdata.sources.laion_tars import tar_rows, tar_segments
from mmdata.sources.records import Segment
from tests.shard_factory import make_image, make_tar

DOTTED = [("22.05.jpg", make_image(1)), ("22.05.txt", b"A barn.")]


def test_a_name_with_dots_is_no_sample_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(make_tar([*DOTTED, ("a.jpg", make_image(2)), ("a.txt", b"A mill.")]))
    assert tar_segments(str(path))
    dropped, row = tar_rows(Segment(str(path)), ColumnNames())
    assert isinstance(dropped, RecordDropped)
    assert dropped.reason == "not-a-sample"
    assert "'05.jpg' is an extension to readers" in dropped.detail
    assert not isinstance(row, RecordDropped)


def test_a_tar_of_such_names_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(make_tar(DOTTED))
    with pytest.raises(BadInputError, match="a key ends at the first dot of a name"):
        tar_segments(str(tmp_path / "0.tar"))


def test_of_two_pictures_none_is_taken_by_chance(tmp_path: Path) -> None:
    two = [("a.jpg", make_image(1)), ("a.png", make_image(2)), ("a.txt", b"A barn.")]
    path = tmp_path / "0.tar"
    path.write_bytes(make_tar([*two, ("b.jpg", make_image(3)), ("b.txt", b"A mill.")]))
    dropped, row = tar_rows(Segment(str(path)), ColumnNames())
    assert isinstance(dropped, RecordDropped)
    assert str(dropped.detail).startswith("a: expected one picture, got jpg and png")
    assert not isinstance(row, RecordDropped)
    assert row.image == make_image(3)
