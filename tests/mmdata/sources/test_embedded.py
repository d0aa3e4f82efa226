"""Images inside records: base64 and data: URIs, strictly."""

import base64

import pytest

from mmdata.images import ImageRejected
from mmdata.sources.embedded import base64_of_uri, decode_embedded, embedded_name, is_data_uri
from tests.corpus import picture


def test_base64_comes_back_as_it_was() -> None:
    data = picture(1)
    text = base64.encodebytes(data).decode()  # with line breaks, as mail has it
    assert "\n" in text
    assert decode_embedded(text) == data


@pytest.mark.parametrize("text", ["a", "ab=c", "ab_-", "b'aaaa'", "é"])
def test_what_is_no_base64_is_unreadable(text: str) -> None:
    with pytest.raises(ImageRejected, match="unreadable: base64 in the record"):
        decode_embedded(text)


@pytest.mark.parametrize(
    ("uri", "payload"),
    [
        ("data:image/png;base64,AAAA", "AAAA"),
        ("data:image/png;name=a.png;base64,AAAA", "AAAA"),
        ("DATA:;base64,AAAA", "AAAA"),
        ("data:image/png,AAAA", None),
        ("data:nonsense", None),
    ],
)
def test_data_uris(uri: str, payload: str | None) -> None:
    assert is_data_uri(uri)
    assert base64_of_uri(uri) == payload


@pytest.mark.parametrize(("kind", "ending"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_name_for_what_has_none(kind: str, ending: str) -> None:
    text = base64.b64encode(picture(1, kind=kind)).decode()
    assert embedded_name(text, 3) == f"embedded-3.{ending}"
    assert embedded_name("????", 3) == "embedded-3"
