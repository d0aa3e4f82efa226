"""An MMC4 record becomes a document, or is refused with the path of what does not fit."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mmdata.sources.base import RecordDropped
from mmdata.sources.mmc4 import parse_record
from tests.corpus import document


def record(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A good record of two images and three sentences, changed."""
    fields = document(0, images=["a.jpg", "b.jpg"], sentences=3)
    change(fields)
    return json.dumps(fields).encode()


def test_what_is_used_is_typed_and_the_rest_is_carried_along() -> None:
    parsed = parse_record(record(lambda r: r.update(extra={"x": 1})))
    assert len(parsed.text_list) == 3
    assert [image.name for image in parsed.images] == ["a.jpg", "b.jpg"]
    assert parsed.similarity.shape == (2, 3)
    assert parsed.similarity.dtype == np.float64
    assert set(parsed.extras) == {"url", "could_have_url_duplicate", "extra"}
    assert set(parsed.images[0].fields) == {"raw_url", "face_detections"}
    assert (parsed.alignment, parsed.similarity_source) == ("assigned", "mmc4")
    assert parsed.notes == []


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (lambda r: r.pop("text_list"), "bad-schema", "$.text_list: expected an array, got nothing"),
        (lambda r: r.update(text_list="a"), "bad-schema", "$.text_list: Expected array, got str"),
        (
            lambda r: r.update(text_list=[1, 2, 3]),
            "bad-schema",
            "$.text_list: Expected str, got int - at $[0]",
        ),
        (lambda r: r.update(text_list=[]), "no-text", "$.text_list: expected a sentence, got none"),
        (
            lambda r: r.update(text_list=["", " ", "\n"]),
            "no-text",
            "$.text_list: expected a sentence, got none",
        ),
        (
            lambda r: r.pop("image_info"),
            "bad-schema",
            "$.image_info: expected an array, got nothing",
        ),
        (
            lambda r: r.update(image_info=[1, 2]),
            "bad-schema",
            "$.image_info: Expected object, got int - at $[0]",
        ),
        (
            lambda r: r.update(image_info=None),
            "bad-schema",
            "$.image_info: Expected array, got null",
        ),
        (
            lambda r: r.pop("similarity_matrix"),
            "no-matrix",
            "$.similarity_matrix: expected a matrix, got nothing",
        ),
        (
            lambda r: r["similarity_matrix"].pop(),
            "bad-matrix",
            "$.similarity_matrix: expected 2 rows of 3, got 1 row of 3",
        ),
        (
            lambda r: r["similarity_matrix"][0].pop(),
            "bad-matrix",
            "$.similarity_matrix: expected 2 rows of 3, got 2 rows of 2, 3",
        ),
        (
            lambda r: r.update(similarity_matrix=[]),
            "bad-matrix",
            "$.similarity_matrix: expected 2 rows of 3, got no rows",
        ),
        (
            lambda r: r["similarity_matrix"][1].__setitem__(0, "0.1"),
            "bad-matrix",
            "$.similarity_matrix: Expected float, got str - at $[1][0]",
        ),
        (
            lambda r: r["similarity_matrix"][1].__setitem__(0, 25.5),
            "bad-matrix",
            "$.similarity_matrix: expected cosines, got 25.5 (x 100?)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(
    change: Callable[[dict[str, Any]], object], reason: str, detail: str
) -> None:
    with pytest.raises(RecordDropped) as caught:
        parse_record(record(change))
    assert (caught.value.reason.value, caught.value.detail) == (reason, detail)


def test_a_number_beyond_a_double_is_refused() -> None:
    text = record(lambda r: r.update(similarity_matrix=[["big", 0, 0], [0, 0, 0]]))
    with pytest.raises(RecordDropped, match=r"bad-number: .*1e999"):
        parse_record(text.replace(b'"big"', b"1e999"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (None, "expected a name, got nothing"),
        ("", "expected a name, got nothing"),
        (5, "Expected str, got int"),
        (["a"], "Expected str, got array"),
    ],
)
def test_an_image_without_a_usable_name_has_a_problem(name: object, problem: str) -> None:
    def rename(fields: dict[str, Any]) -> None:
        fields["image_info"][1]["image_name"] = name

    image = parse_record(record(rename)).images[1]
    assert image.name == ""
    assert image.problem.startswith("$.image_info[1].image_name: ")
    if name is not None:
        assert problem in image.problem


@pytest.mark.parametrize("value", [-1, 3, 9999, "1", 1.5, 1.0, None, [0], True])
def test_a_matched_index_that_is_off_is_noted(value: object) -> None:
    def set_index(fields: dict[str, Any]) -> None:
        fields["image_info"][0]["matched_text_index"] = value

    parsed = parse_record(record(set_index))
    got = json.dumps(value)
    assert parsed.notes == [
        (
            "bad-matched-index",
            f"$.image_info[0].matched_text_index: expected 0 to 2, got {got}; computed anew",
        )
    ]


@pytest.mark.parametrize("value", [0, 2])
def test_a_matched_index_that_fits_is_not(value: int) -> None:
    def set_index(fields: dict[str, Any]) -> None:
        fields["image_info"][0]["matched_text_index"] = value

    assert parse_record(record(set_index)).notes == []


def test_no_images_need_no_rows() -> None:
    def strip(fields: dict[str, Any]) -> None:
        fields.update(image_info=[], similarity_matrix=[])

    assert parse_record(record(strip)).similarity.shape == (0, 3)
