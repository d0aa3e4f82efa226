"""From members of a sample to a record, or to the reason why not."""

import base64
import json
from typing import Any

import pytest

from mmdata.training_view.records import RecordRule, UnusableError, image_bytes, read_record
from mmdata.training_view.selection import DocumentReason
from tests.flamingo.data.conftest import make_page, make_picture


def members(**parts: bytes) -> dict[str, memoryview]:
    return {name: memoryview(data) for name, data in parts.items()}


def document(value: Any) -> dict[str, memoryview]:
    return members(json=json.dumps(value).encode())


def reason_of(parts: dict[str, memoryview], rule: RecordRule) -> DocumentReason:
    with pytest.raises(UnusableError) as error:
        read_record(parts, rule)
    return error.value.reason


def test_sizes_are_those_of_the_files() -> None:
    for size in range(1, 9):
        page = make_page(0, [0])
        page["image_info"][0]["image_base64"] = base64.b64encode(bytes(size)).decode()
        record = read_record(document(page), "interleaved")
        assert record.candidates.image_bytes == [size]
        assert record.images[0] is not None
        assert image_bytes(record.images[0]) == bytes(size)


def test_an_image_without_bytes_is_missing() -> None:
    page = make_page(0, [0, 1, 2])
    del page["image_info"][0]["image_base64"]
    page["image_info"][1]["image_base64"] = None
    record = read_record(document(page), "interleaved")
    assert record.candidates.image_bytes == [None, None, len(make_picture(0, 2))]


def test_an_image_that_escapes_its_slashes_is_read() -> None:
    page = make_page(0, [0])
    encoded = base64.b64encode(b"\xff\xff\xfe" * 4).decode()
    page["image_info"][0]["image_base64"] = encoded
    data = json.dumps(page).replace(encoded, encoded.replace("/", "\\/")).encode()
    (image,) = read_record(members(json=data), "interleaved").images
    assert image is not None
    assert image_bytes(image) == b"\xff\xff\xfe" * 4


def test_what_is_no_base64_condemns_its_image_alone() -> None:
    page = make_page(0, [0, 1])
    page["image_info"][0]["image_base64"] = "QUJD" * 9
    data = json.dumps(page).encode().replace(b"QUJDQUJD", b"QUJD\xff\x00JD", 1)
    first, second = read_record(members(json=data), "interleaved").images
    assert first is not None
    assert second is not None
    with pytest.raises(ValueError, match="base64"):
        image_bytes(first)
    assert image_bytes(second) == make_picture(0, 1)


def test_what_others_leave_out_or_get_wrong_does_not_matter() -> None:
    page = make_page(0, [0, 1])
    page["image_info"][0] |= {"matched_text_index": None, "matched_sim": "high"}
    record = read_record(document(page | {"alignment": None, "url": 3}), "interleaved")
    assert record.candidates.alignment == "assigned"
    assert record.candidates.matched is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DocumentReason.BAD_RECORD),
        (b"[]", DocumentReason.BAD_RECORD),
        (b'{"text_list": "a", "image_info": []}', DocumentReason.BAD_RECORD),
        (b'{"text_list": ["\xff"], "image_info": []}', DocumentReason.BAD_RECORD),
        (b'{"text_list": ["a"]}', DocumentReason.BAD_RECORD),
        (b'{"url": ' + b"[" * 100_000, DocumentReason.BAD_RECORD),
        (b'{"text_list": [], "image_info": []}', DocumentReason.NO_TEXT),
        (b'{"is_gpt": true, "example": ""}', DocumentReason.UNSUPPORTED),
        (
            b'{"text_list": ["a"], "image_info": [], "similarity_matrix": [[1], [1, 2]]}',
            DocumentReason.BAD_ALIGNMENT,
        ),
    ],
)
def test_documents_that_are_none(data: bytes, reason: DocumentReason) -> None:
    assert reason_of(members(json=data), "interleaved") is reason


def test_the_other_kind_of_sample() -> None:
    pair = members(jpg=b"picture", txt=b"text", json=b"{}")
    assert reason_of(pair, "interleaved") is DocumentReason.NOT_INTERLEAVED
    assert reason_of(document(make_page(0, [0, 1])), "caption") is DocumentReason.NOT_A_PAIR
    assert reason_of(members(txt=b"text"), "caption") is DocumentReason.NOT_A_PAIR
