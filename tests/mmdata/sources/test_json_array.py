"""Elements of a JSON array are found without parsing, wherever chunks and ranges are cut."""

import io
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import BadInputError
from mmdata.sources import json_array
from mmdata.sources.json_array import cut_ranges, read_elements, read_range

LIMIT = 1 << 20
#: Quotes, backslashes, brackets and commas, inside strings and out, in any order.
awkward = st.text(alphabet='"\\[]{},é\n a', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | awkward,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(awkward, inner, max_size=3),
    max_leaves=8,
)
arrays = st.lists(values, max_size=6)


def elements(raw: bytes, limit: int = LIMIT) -> list[Any]:
    found = read_elements(io.BytesIO(raw), "x.json", limit)
    return [one if isinstance(one, int) else json.loads(one) for one in found]


@given(
    arrays, st.sampled_from([1, 2, 3, 7, 64, 1 << 18]), st.sampled_from([None, 1]), st.booleans()
)
def test_elements_are_those_of_a_parser(
    array: list[Any], chunk: int, indent: int | None, escaped: bool
) -> None:
    raw = json.dumps(array, indent=indent, ensure_ascii=escaped).encode()
    with mock.patch.object(json_array, "_CHUNK_BYTES", chunk):
        assert elements(raw) == array
        assert elements(b"\xef\xbb\xbf \n" + raw + b"\n ") == array


@given(arrays.filter(len), st.integers(1, 40), st.sampled_from([3, 1 << 18]))
def test_ranges_hold_every_element_once(array: list[Any], size: int, chunk: int) -> None:
    raw = json.dumps(array).encode()
    with mock.patch.object(json_array, "_CHUNK_BYTES", chunk):
        ranges = cut_ranges(io.BytesIO(raw), "x.json", size)
        found = [
            json.loads(one)
            for start, end in ranges
            for one in read_range(io.BytesIO(raw), "x.json", start, end, LIMIT)
            if isinstance(one, bytes)
        ]
    assert found == array
    assert all(end - start >= size for start, end in ranges[:-1])


def test_what_is_inside_an_element_is_not_judged() -> None:
    raw = b'[{"a": 1}, {"a": nonsense}, {"b": 2}]'
    assert list(read_elements(io.BytesIO(raw), "x", LIMIT)) == [
        b'{"a": 1}',
        b'{"a": nonsense}',
        b'{"b": 2}',
    ]


def test_an_element_over_the_limit_is_passed_over_in_bounded_memory() -> None:
    long = json.dumps("x" * 900_000).encode()
    raw = b'["a",' + long + b'   ,"b"]'
    assert elements(raw, limit=10) == ["a", pytest.approx(len(long), abs=3), "b"]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'[{"a": 1},]', "a record is missing at byte 10 of the JSON array"),
        (b'[,{"a": 1}]', "a record is missing at byte 1 of the JSON array"),
        (b'[{"a": 1},,{}]', "a record is missing at byte 10 of the JSON array"),
        (b'[{"a": 1},{"b"', "ends at byte 14 before it is closed, in record 1; it is cut off"),
        (b'[{"a": 1},{"b": "c', "ends at byte 18 inside a string, in record 1; it is cut off"),
        (b"[1] 2", "there is more behind the end of the JSON array, at byte 3"),
        (b"[1][2]", "there is more behind the end of the JSON array, at byte 3"),
        (b'{"a": 1}', "expected a JSON array"),
    ],
)
def test_a_broken_array_is_refused_with_the_position(raw: bytes, problem: str) -> None:
    with pytest.raises(BadInputError, match=problem):
        elements(raw)


@pytest.mark.parametrize("raw", [b"[1,", b"[1] 2"])
def test_a_broken_array_is_refused_when_it_is_cut(raw: bytes) -> None:
    with pytest.raises(BadInputError):
        cut_ranges(io.BytesIO(raw), "x.json", 10)
