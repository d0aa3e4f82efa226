"""A record is taken only where every reader would read the same in it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.base import RecordDropped
from mmdata.sources.strict_json import MAX_DEPTH, decode_object

LONE = "a \\ud800-\\udfff escape without its pair"


def dropped(record: bytes) -> tuple[str, str]:
    with pytest.raises(RecordDropped) as caught:
        decode_object(record)
    return caught.value.reason.value, caught.value.detail


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (b'{"a": ', "bad-json", "expected JSON, got Expecting value at character 6"),
        (b"", "bad-json", "expected JSON, got Expecting value at character 0"),
        (b"{} {}", "bad-json", "expected JSON, got Extra data at character 3"),
        (
            b'{"a": "\n"}',
            "bad-json",
            "expected JSON, got Invalid control character at at character 7",
        ),
        (
            b"{'a': 1}",
            "bad-json",
            "expected JSON, got Expecting property name enclosed in double quotes at character 1",
        ),
        (b'{"a": "\xff"}', "not-utf8", "expected UTF-8, got byte 0xff at 7"),
        (b'{"a": "\xed\xa0\x80"}', "not-utf8", "expected UTF-8, got byte 0xed at 7"),
        (b'{"a": NaN}', "non-finite", "expected a finite number, got NaN"),
        (b'{"a": [-Infinity]}', "non-finite", "expected a finite number, got -Infinity"),
        (
            b'{"a": [{"b": -' + b"7" * 4301 + b"}]}",
            "bad-number",
            "expected a number that readers can hold, got an integer of 4,301 digits",
        ),
        (
            b'{"a": 1e999}',
            "bad-number",
            "expected a number that readers can hold, got 1e999, which is beyond a double",
        ),
        (
            b'{"a": -' + b"1" * 310 + b".5}",
            "bad-number",
            f"expected a number that readers can hold, got -{'1' * 39}..., "
            "which is beyond a double",
        ),
        (b'{"a": 1, "a": 2}', "duplicate-keys", "key 'a' occurs twice in one object"),
        (
            b'{"x": [{"a": 1, "\\u0061": 2}]}',
            "duplicate-keys",
            "key 'a' occurs twice in one object",
        ),
        (b'{"a": "\\ud83d"}', "lone-surrogate", LONE),
        (b'{"a": {"b": ["\\udc00x"]}}', "lone-surrogate", LONE),
        (b'{"\\ud83d": 1}', "lone-surrogate", LONE),
        (b"[]", "not-an-object", "expected an object, got array"),
        (b'"a"', "not-an-object", "expected an object, got string"),
        (b"null", "not-an-object", "expected an object, got null"),
        (b"true", "not-an-object", "expected an object, got boolean"),
    ],
)
def test_what_is_wrong_is_said_and_counted(record: bytes, reason: str, detail: str) -> None:
    assert dropped(record) == (reason, detail)


@given(st.text("0123456789", min_size=1, max_size=400), st.integers(-400, 400), st.booleans())
def test_a_real_number_is_refused_where_it_would_become_infinity(
    digits: str, exponent: int, signed: bool
) -> None:
    number = f"{'-' if signed else ''}1{digits}.{digits}e{exponent}"
    record = f'{{"a": {number}}}'.encode()
    if math.isinf(float(number)):
        assert dropped(record)[0] == "bad-number"
    else:
        assert bytes(decode_object(record)["a"]) == number.encode()


@pytest.mark.parametrize("number", [b"1", b"-0.5", b"1e9", b"9" * 5000])
def test_a_lone_number_is_no_object(number: bytes) -> None:
    reason, detail = dropped(number)
    assert reason == "not-an-object"
    assert detail == "expected an object, got number"


def test_values_are_kept_as_they_are_written() -> None:
    record = (
        b'{ "huge": -'
        + b"9" * 4300
        + b' , "f":0.10000000000000000001,"s":"\\u00e9\\/", "o": {"a" :1}}'
    )
    fields = {name: bytes(raw) for name, raw in decode_object(record).items()}
    assert fields == {
        "huge": b"-" + b"9" * 4300,
        "f": b"0.10000000000000000001", "s": b'"\\u00e9\\/"', "o": b'{"a" :1}',
    }  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_the_depth_limit_is_exact_and_does_not_hang_on_the_stack(
    opening: bytes, closing: bytes
) -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"

    def from_far_down(depth: int, frames: int) -> Any:
        return from_far_down(depth, frames - 1) if frames else decode_object(nested(depth))

    assert from_far_down(MAX_DEPTH, 500)
    for depth in (MAX_DEPTH + 1, 2_000, 100_000):
        reason, detail = dropped(nested(depth))
        assert (reason, detail) == ("too-deep", "arrays or objects nest deeper than 100")


def test_brackets_in_text_and_side_by_side_are_not_depth() -> None:
    assert decode_object(b'{"a": "' + b"[{" * 500 + b'"}')
    assert decode_object(b'{"a": [' + b"[]," * 500 + b"{}]}")


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts, values), st.booleans())
def test_any_good_object_is_taken(value: dict[str, Any], ascii_only: bool) -> None:
    record = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert {k: json.loads(bytes(raw)) for k, raw in decode_object(record).items()} == value


@given(st.binary())
def test_any_bytes_are_taken_or_dropped_with_a_reason(data: bytes) -> None:
    for record in (data, b'{"a":"' + data + b'"}', b'{"' + data + b'":[]}'):
        try:
            fields = decode_object(record)
        except RecordDropped:
            continue
        assert fields.keys() == json.loads(record).keys()
