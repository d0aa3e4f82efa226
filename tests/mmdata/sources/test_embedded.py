"""Images inside records: base64 and data: URIs, strictly."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.images import ImageRejected
from mmdata.sources.embedded import (
    base64_of_uri,
    decode_embedded,
    embedded_name,
    is_bare_base64,
    is_data_uri,
)
from tests.corpus import picture


def test_base64_comes_back_as_it_was() -> None:
    data = picture(1)
    text = base64.encodebytes(data).decode()  # with line breaks, as mail has it
    assert "\n" in text
    assert decode_embedded(text) == data


@pytest.mark.parametrize("text", ["a", "ab=c", "ab$-", "b'aaaa'", "é", "abcde", "abcd=", "abc=="])
def test_what_is_no_base64_is_unreadable(text: str) -> None:
    with pytest.raises(ImageRejected, match="unreadable: base64 in the record"):
        decode_embedded(text)


@pytest.mark.parametrize(
    ("uri", "payload"),
    [
        ("data:image/png;base64,AAAA", "AAAA"),
        ("data:image/png;name=a.png;base64,AAAA", "AAAA"),
        ("DATA:;base64,AAAA", "AAAA"),
        ("data:image/png;charset=utf-8;BASE64,AAAA", "AAAA"),
        ("data:image/png;base64;charset=utf-8,AAAA", "AAAA"),
        (" Data: image/png ; base64 , AA\nAA", " AA\nAA"),
        ("data:base64,AAAA", "AAAA"),
        ("data:image/png;base64,AA%2BA%0A", "AA+A\n"),
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


@given(
    data=st.binary(max_size=80),
    safe=st.booleans(),
    padded=st.booleans(),
    width=st.integers(1, 90),
    end=st.sampled_from(["\n", "\r\n", " ", ""]),
)
def test_every_spelling_of_base64_is_read(
    data: bytes, safe: bool, padded: bool, width: int, end: str
) -> None:
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    lines = end.join(text[at : at + width] for at in range(0, len(text), width))
    assert decode_embedded(lines) == data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_without_a_data_uri_is_known_by_its_first_bytes(kind: str) -> None:
    data = picture(1, kind=kind)
    text = base64.b64encode(data).decode()
    assert is_bare_base64(text)
    assert is_bare_base64(base64.urlsafe_b64encode(data).decode().rstrip("="))
    assert not is_bare_base64(text[:20])
    assert not is_bare_base64(text + ".jpg")
    assert embedded_name(f"\n{text}", 0).startswith("embedded-0.")


@pytest.mark.parametrize(
    "name", ["a.jpg", "a/" * 40 + "b", "0" * 64, "f" * 40, "/9hqr/" + "a" * 60, "iVBORw0K"]
)
def test_a_name_is_not_taken_for_base64(name: str) -> None:
    assert not is_bare_base64(name)
