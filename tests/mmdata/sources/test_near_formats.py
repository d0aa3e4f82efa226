"""A record that cannot be read is told by what it looks like."""

import pytest

from mmdata.sources.base import RecordDropped
from mmdata.sources.near_formats import near_format
from schemas.reasons import DocumentDrop


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("custom", ("id", "image", "conversatons"), "conversatons: is conversations meant?"),
        ("mmc4", ("text_lists", "image_info"), ""),
        ("mmc4", ("textlist", "image_info"), "textlist: is text_list meant?"),
        ("custom", ("image", "caption"), "names of pictures with captions"),
        ("laion", ("image_path", "captions"), "convert-laion reads URLs, and pictures inside"),
        ("custom", ("url", "caption"), "convert-laion reads it"),
        ("laion", ("id", "conversations"), "convert-custom reads them"),
        ("laion", ("text_list", "image_info"), "convert-mmc4 reads them"),
        ("laion", ("texts", "images"), "MINT-1T"),
        ("custom", ("images", "annotations"), "COCO"),
        ("custom", ("text", "images"), "Data-Juicer"),
        ("custom", ("image", "instruction", "response"), "questions and answers"),
        ("custom", ("query", "response", "images"), "questions and answers"),
        ("custom", ("data",), r"""jq -c '.["data"][]' FILE"""),
        ("custom", ("a", "b"), ""),
        ("custom", (), ""),
    ],
)
def test_by_its_fields(kind: str, fields: tuple[str, ...], said: str) -> None:
    found = near_format(kind, fields, RecordDropped(DocumentDrop.UNKNOWN_FORMAT, "expected"))
    assert said in found
    assert bool(said) == bool(found)


def test_texts_of_user_and_assistant_are_no_obelics() -> None:
    wrong = RecordDropped(DocumentDrop.BAD_SCHEMA, "$.texts[0]: Expected str | null, got object")
    assert "The Cauldron or FineVision" in near_format("custom", ("images", "texts"), wrong)
    other = RecordDropped(DocumentDrop.BAD_SCHEMA, "$.images: expected 2 places")
    assert near_format("custom", ("images", "texts"), other) == ""


def test_what_is_no_line_of_json() -> None:
    array = RecordDropped(DocumentDrop.NOT_AN_OBJECT, "expected an object, got array")
    assert "jq -c '.[]'" in near_format("laion", (), array)
    broken = RecordDropped(DocumentDrop.BAD_JSON, "expected JSON")
    assert "jq -c ." in near_format("laion", (), broken)
