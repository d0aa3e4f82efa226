"""Strict base64 by its words, images by what they are."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.validation.image_rules import NotBase64, check_image, decode_base64
from schemas.document import ShardImage
from tests.shard_factory import make_image, sha256


@given(st.binary(max_size=300))
def test_what_was_encoded_is_decoded(data: bytes) -> None:
    assert decode_base64(base64.b64encode(data)) == data


@pytest.mark.parametrize(
    ("payload", "code", "expected", "got"),
    [
        (
            b"b'AAAA'",
            "B64001",
            "base64 alone",
            "b'...', the text of Python bytes (str() instead of .decode())",
        ),
        (
            b'b\\"AAAA\\"',
            "B64001",
            "base64 alone",
            "b'...', the text of Python bytes (str() instead of .decode())",
        ),
        (b"AAA", "B64002", "a multiple of 4 characters", "3 characters (padding missing?)"),
        (b"AA==AAAA", "B64002", "padding at the end only", "ends in b'AA==AAAA'"),
        (b"AAAA\\nAAAA", "B64002", "the standard alphabet", "an escape, b'\\\\' at 4"),
        (b"AA-_", "B64002", "the standard alphabet", "the URL alphabet, b'-' at 2"),
        (b"AA!A", "B64002", "the standard alphabet", "a foreign character, b'!' at 2"),
        (
            b"data:image/jpeg;base64,AAAA",
            "B64002",
            "base64 alone",
            "a data URL, b'data:image/jpeg;base64,A'...",
        ),
        (b"AB==", "B64002", "zero bits behind the last byte", "ends in b'AB=='"),
    ],
)
def test_what_is_not_strict_is_named(payload: bytes, code: str, expected: str, got: str) -> None:
    with pytest.raises(NotBase64) as error:
        decode_base64(payload)
    assert (error.value.code, error.value.expected, error.value.got) == (code, expected, got)


def problems(
    data: bytes, *, decode: bool = True, ours: bool = True, **claims: object
) -> list[tuple[str, str, str, str]]:
    image = ShardImage(**claims)  # type: ignore[arg-type]
    return [
        (code, *problem)
        for code, problem in check_image(image, data, "$", ours=ours, decode=decode)
    ]


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_an_image_that_is_what_it_says(kind: str) -> None:
    data = make_image(1, kind=kind)
    assert problems(data, width=24, height=16, format=kind, sha256=sha256(data)) == []
    assert problems(data) == []


def test_what_it_is_not_is_found() -> None:
    data = make_image(1)
    assert problems(data, width=16, format="png") == [
        ("IMG003", "$.width", "24, from the image itself", "16"),
        ("IMG003", "$.format", "'jpeg', from the image itself", "'png'"),
    ]
    assert problems(data, sha256="0" * 64, decode=False) == [
        ("IMG001", "$.sha256", "0" * 64, sha256(data))
    ]


def test_damage_is_found_by_decoding() -> None:
    data = make_image(1, width=96, height=96)
    cut = data[: len(data) // 2] + b"\xff\xd9"
    assert problems(cut, decode=False) == []
    assert [problem[0] for problem in problems(cut)] == ["IMG002"]
    assert [problem[0] for problem in problems(b"<html>")] == ["IMG002"]


def test_what_readers_treat_differently_is_a_warning_in_ours_alone() -> None:
    data = make_image(1, kind="gif")
    assert problems(data) == [("IMG004", "$.format", "jpeg, png or webp", "gif")]
    assert problems(data, ours=False) == []
