"""Blocks inserted, cut out, zeroed, swapped: what a tar still holds is found, the rest is named.

The fuzz damages a tar of documents at any byte. A document whose bytes are still together must come
out; every other byte must be in a range that is named; with the samples table every row must be
saved or named.
"""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.repair.found import Row
from mmdata.repair.recover import documents_in, is_document, recover
from mmdata.repair.salvage import salvage
from mmdata.shards.structure import walk
from mmdata.shards.tar import END_MARK, member_header, padding
from tests.shard_factory import sha256

Damage = Callable[[bytes], bytes]


def document(number: int, size: int) -> bytes:
    words = [f"Document {number} sentence {n} of its own." for n in range(size)]
    fields = {"text_list": words, "image_info": [{"image_name": "{a}"}], "id": f"doc-{number}"}
    return json.dumps(fields).encode()


#: Of less than a block, of one block and a little, of several blocks, of a whole number of them.
DOCUMENTS = [document(number, size) for number, size in enumerate((1, 12, 50, 2, 30, 5))]
DOCUMENTS[2] += b" " * (-len(DOCUMENTS[2]) % 512)
KEYS = [f"{number:012d}" for number in range(len(DOCUMENTS))]


def tar_of(documents: list[bytes], keys: list[str]) -> bytes:
    parts = [
        member_header(f"{key}.json", len(data)) + data + padding(len(data))
        for key, data in zip(keys, documents, strict=True)
    ]
    return b"".join(parts) + END_MARK


TAR = tar_of(DOCUMENTS, KEYS)
ROWS: list[Row] = [
    {"key": key, "offset": TAR.index(data), "size": len(data), "sha256": sha256(data)}
    for key, data in zip(KEYS, DOCUMENTS, strict=True)
]


def test_the_fixture_is_sound() -> None:
    assert [item.key for item in salvage(TAR, "interleaved")] == KEYS
    assert all(item.notes == [] for item in salvage(TAR, "interleaved", ROWS))


@st.composite
def damages(draw: st.DrawFn) -> bytes:
    """A tar after one to three things that happen to files."""
    data = TAR
    for _ in range(draw(st.integers(1, 3))):
        aligned = 512 if draw(st.booleans()) else 1
        at = draw(st.integers(0, len(data) // aligned)) * aligned
        length = draw(st.sampled_from([1, 100, 512, 512, 512, 700, 1024, 5000]))
        kind = draw(st.sampled_from(["insert", "noise", "delete", "zero", "swap", "append", "cut"]))
        if kind == "insert":
            data = data[:at] + bytes(length) + data[at:]
        elif kind == "noise":
            data = data[:at] + b"\x9d\x00U\xff" * (length // 4 + 1) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + length :]
        elif kind == "zero":
            data = data[:at] + bytes(len(data[at : at + length])) + data[at + length :]
        elif kind == "swap":
            to = draw(st.integers(0, len(data) // 512)) * 512
            one, other = sorted((at, to))
            if other - one >= 512:
                first, second = data[one : one + 512], data[other : other + 512]
                data = data[:one] + second + data[one + 512 : other] + first + data[other + 512 :]
        elif kind == "append":
            data += data[: draw(st.integers(0, len(data)))]
        else:
            data = data[:at]
    return data


def saved(data: bytes, rows: list[Row] | None) -> list[bytes]:
    return [
        data[offset : offset + size].strip()
        for item in salvage(data, "interleaved", rows)
        for offset, size in item.members.values()
    ]


@settings(max_examples=150)
@given(damages())
def test_a_document_whose_bytes_are_together_is_saved(data: bytes) -> None:
    whole = {document.strip() for document in DOCUMENTS if document.strip() in data}
    assert whole <= set(saved(data, None))


@settings(max_examples=150)
@given(damages())
def test_with_the_table_each_row_is_saved_or_named(data: bytes) -> None:
    found = salvage(data, "interleaved", ROWS)
    whole = {document.strip() for document in DOCUMENTS if document.strip() in data}
    assert whole <= {
        data[offset : offset + size].strip()
        for item in found
        for offset, size in item.members.values()
    }
    if whole:
        assert set(KEYS) <= {item.key for item in found}
    for item in found:
        if item.row is not None and item.members:
            assert item.key == item.row["key"]


@settings(max_examples=150)
@given(damages())
def test_every_byte_is_accounted_for(data: bytes) -> None:
    recovery = recover(data, list(walk(data, lambda fault: None)), "interleaved")
    told = bytearray(data)
    for member in recovery.members:
        end = member.offset + member.size
        begin = max(0, member.offset - 512)
        told[begin : end + -member.size % 512] = bytes(len(told[begin : end + -member.size % 512]))
    for begin, end, _ in recovery.lost:
        told[begin:end] = bytes(end - begin)
    assert not told.strip(b"\0")


@settings(max_examples=100)
@given(damages())
def test_ranges_that_are_lost_are_named_by_offset_and_length(data: bytes) -> None:
    for item in salvage(data, "interleaved"):
        if item.lost and item.lost[0] == "lost":
            begin, end, length = map(int, re.findall(r"\d+", item.lost[1])[:3])
            assert end - begin == length
            assert data[begin:end].strip(b"\0")


def test_a_document_without_a_header_is_called_by_its_id_or_its_place() -> None:
    anonymous = json.dumps({"text_list": ["No id."]}).encode()
    data = bytearray(tar_of([DOCUMENTS[0], anonymous, DOCUMENTS[1]], ["a", "b", "c"]))
    for held in (DOCUMENTS[0], anonymous):
        start = data.index(held)
        data[start - 512 : start] = b"\x55" * 512
    place = data.index(anonymous)
    names = [item.name for item in salvage(bytes(data), "interleaved")]
    assert names == ["doc-0.json", f"recovered-{place:012d}.json", "c.json"]


def test_a_length_that_no_header_tells_is_not_vouched_for() -> None:
    start = TAR.index(DOCUMENTS[1])
    found = salvage(TAR[: start + 100] + TAR[start + 120 :], "interleaved")
    assert [item.vouched for item in found if item.members] == [True, False, *[True] * 4]


@pytest.mark.parametrize(
    ("raw", "whole"),
    [
        (b'{"text_list": ["a"]}', True),
        (b'\xef\xbb\xbf {"text_list": ["a\nb"]} \n', True),
        (b'{"text_list": ["a"]}\0', False),
        (b'{"text_list": ["a"]', False),
        (b'{"caption": "a"}', False),
        (b"[]", False),
        (b"", False),
        (b'{"a":' * 3000, False),
    ],
)
def test_what_is_a_document(raw: bytes, whole: bool) -> None:
    assert is_document(raw) is whole


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 5))
def test_a_document_is_found_between_any_bytes(before: bytes, behind: bytes, number: int) -> None:
    data = before + b"\0" + DOCUMENTS[number].strip() + b"\0" + behind
    found = [data[begin:end] for begin, end, _ in documents_in(data, 0, len(data))]
    assert DOCUMENTS[number].strip() in found


def test_a_document_larger_than_the_first_window_is_found() -> None:
    large = json.dumps({"text_list": ["a" * 2**20]}).encode()
    assert [b - a for a, b, _ in documents_in(large, 0, len(large))] == [len(large)]
