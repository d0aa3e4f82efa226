"""The checked-in JSON Schemas are those of the types, and mean what the types mean."""

import json

import pytest
from jsonschema import Draft202012Validator

from schemas.generate import FOLDER, schema_files


def test_files_are_those_of_the_types() -> None:
    """`make schemas` rewrites them."""
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert there == schema_files()


@pytest.mark.parametrize("name", sorted(schema_files()))
def test_each_is_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(schema_files()[name]))


def a_document() -> dict[str, object]:
    image = {
        "image_name": "a.jpg",
        "matched_text_index": 0,
        "matched_sim": 0.25,
        "image_base64": "AAAA",
        "width": 4,
        "height": 3,
        "format": "jpeg",
        "sha256": "0" * 64,
    }
    return {
        "format_version": "1",
        "text_list": ["A sentence."],
        "image_info": [image],
        "similarity_matrix": [[0.25]],
        "similarity_source": "mmc4",
        "alignment": "assigned",
    }


def problems(document: dict[str, object]) -> list[str]:
    schema = json.loads(schema_files()["document.schema.json"])
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(document)]


def test_a_document_is_accepted_with_fields_of_others() -> None:
    assert problems(a_document()) == []
    assert problems(a_document() | {"url": None, "unknown_field": [1]}) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"text_list": []}, "$.text_list"),
        ({"alignment": "guessed"}, "$.alignment"),
        ({"similarity_matrix": [["0.25"]]}, "$.similarity_matrix[0][0]"),
        ({"image_info": [{}]}, "$.image_info[0]"),
    ],
)
def test_a_broken_document_is_refused(change: dict[str, object], path: str) -> None:
    assert path in problems(a_document() | change)


def test_a_missing_field_is_refused() -> None:
    document = a_document()
    del document["similarity_source"]
    assert problems(document) == ["$"]
