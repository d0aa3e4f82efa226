"""Reading documents: the cut of the payloads changes nothing of what is read."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.validation.documents import Unreadable, parse_document, schema_problem
from tests.shard_factory import encode, make_document


def failure(raw: bytes) -> tuple[str, tuple[str, str, str]]:
    with pytest.raises(Unreadable) as error:
        parse_document(raw)
    return error.value.code, error.value.problem


def test_a_field_of_that_name_elsewhere_confuses_nobody() -> None:
    document = make_document(1) | {"image_base64": "elsewhere"}
    document["text_list"][0] = 'a "image_base64": "b" c'
    parsed = parse_document(encode(document))
    assert [bytes(payload or b"").decode() for payload in parsed.payloads] == [
        image["image_base64"] for image in document["image_info"]
    ]


@pytest.mark.parametrize("value", ["null", '"a\\"b"', '""'])
def test_odd_values_are_read_as_json_reads_them(value: str) -> None:
    raw = f'{{"text_list":[],"image_info":[{{"image_base64":{value}}}]}}'.encode()
    found = parse_document(raw).payloads[0]
    assert (None if found is None else bytes(found).decode()) == json.loads(value)


@pytest.mark.parametrize(
    ("raw", "code", "problem"),
    [
        (
            b'{"text_list":["a"],"image_info":[{"matched_text_index":"3"}]}',
            "DOC001",
            ("$.image_info[0].matched_text_index", "`int`", "`str`"),
        ),
        (
            b'{"image_info":[]}',
            "DOC001",
            ("$", "what the schema asks for", "Object missing required field `text_list`"),
        ),
        (b"null", "JSON006", ("$", "`object`", "`null`")),
        (
            b'{"text_list":["a"],"image_info":[],"similarity_matrix":[[-Infinity]]}',
            "JSON002",
            ("$", "JSON", "Infinity, which JSON does not have"),
        ),
        (
            b'{"text_list":["a"],"image_info":[],"url":"\xc3"}',
            "JSON001",
            ("$", "UTF-8", "byte 0xc3 at 42 (invalid continuation byte)"),
        ),
        (
            b'{"text_list":["a"],"image_info":[{"x":1,"x":2}]}',
            "JSON003",
            ("$", "each key once", "'x' twice"),
        ),
        (
            b'{"text_list":["a"],"image_info":[],"x":["\\udc00"]}',
            "JSON004",
            ("$", "surrogates in pairs", "\\udc00 alone"),
        ),
        (
            b'{"text_list":["a"],"image_info":[],"similarity_matrix":[[1e999]]}',
            "SIM003",
            ("$.similarity_matrix[0][0]", "what the schema asks for", "Number out of range"),
        ),
    ],
)
def test_what_breaks_a_rule_of_json(raw: bytes, code: str, problem: tuple[str, str, str]) -> None:
    assert failure(raw) == (code, problem)


def test_a_duplicate_key_beside_a_payload() -> None:
    raw = b'{"text_list":["a"],"image_info":[{"image_base64":"AAAA","image_base64":"AAAB"}]}'
    assert failure(raw)[0] == "JSON003"


@pytest.mark.parametrize(
    ("number", "got"),
    [
        ("1" * 4301, "an integer of 4,301 digits"),
        ("-" + "1" * 5000, "an integer of 5,000 digits"),
        ("-1e999", "-1e999, which is beyond a double"),
    ],
)
def test_a_number_that_readers_cannot_hold(number: str, got: str) -> None:
    raw = f'{{"text_list":["a"],"image_info":[{{"x":[{number}]}}]}}'.encode()
    assert failure(raw) == ("JSON007", ("$", "a number that readers can hold", got))


def test_long_numbers_and_pairs_of_surrogates_are_json() -> None:
    number = "1" * 4300
    raw = f'{{"text_list":["\\ud83d\\ude00"],"image_info":[],"x":{number}}}'.encode()
    assert parse_document(raw).document.text_list == ["😀"]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with contextlib.suppress(Unreadable):
        parse_document(raw)


def test_problems_of_the_schema_in_parts() -> None:
    error = msgspec.ValidationError("Expected `int` >= 0, got `x` - at `$.a[0]`")
    assert schema_problem(error) == ("$.a[0]", "`int` >= 0", "`x`")


def test_ours_owes_all_fields() -> None:
    document: dict[str, Any] = make_document(1)
    del document["image_info"][1]["sha256"]
    assert failure(encode(document)) == (
        "DOC001",
        ("$.image_info[1]", "what the schema asks for", "Object missing required field `sha256`"),
    )
