"""Documents whose pictures are cut out are read as a JSON decoder reads the whole of them.

`json.loads` is the judge. Documents are written as any writer may: spaces around colons, any
character escaped or not, keys escaped, strings that look like our marks, the key elsewhere.
"""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmdata.shards.pictures_in_json import cut_pictures
from mmdata.training_view.records import Base64, UnusableError, read_record
from mmdata.validation.documents import Unreadable, parse_document
from tests.shard_factory import encode, make_document

STRINGS = st.one_of(
    st.text("AQ==/+", max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(
        ["\x7f0", "\x7f1", "a\x7f0", '"image_base64":"AAAA"', 'a "image_base64": "', "\\", 'A\\"']
    ),
)
KEYS = st.sampled_from(["image_base64", "image_name", 'x"image_base64', "raw"])
IMAGES = st.lists(st.dictionaries(KEYS, STRINGS, max_size=3), max_size=4)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
SPACES = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])


def _string(value: str, draw: st.DrawFn) -> str:
    """A JSON string with some of its characters escaped that need not be."""
    escaped = draw(st.sets(st.sampled_from(sorted(set(value) or {"a"})), max_size=3))
    long = draw(st.booleans())
    parts = []
    for char in value:
        if char in '"\\' or ord(char) < 32 or (char in escaped and ord(char) < 2**16):
            short = not long and char in '"\\/'
            hexed = f"{ord(char):04x}"
            parts.append("\\" + char if short else "\\u" + (hexed.upper() if long else hexed))
        else:
            parts.append(char)
    return '"' + "".join(parts) + '"'


@st.composite
def written(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> bytes:
    """JSON of a value, as any writer may have written it."""

    def write(value: Any) -> str:
        def space() -> str:
            return draw(SPACES)

        if isinstance(value, str):
            return _string(value, draw)
        if isinstance(value, list):
            return "[" + ",".join(space() + write(one) + space() for one in value) + "]"
        if isinstance(value, dict):
            pairs = (
                f"{space()}{_string(key, draw)}{space()}:{space()}{write(one)}{space()}"
                for key, one in value.items()
            )
            return "{" + ",".join(pairs) + "}"
        return json.dumps(value)

    return write(draw(values)).encode()


DOCUMENTS = st.builds(
    lambda more, texts, images: {**more, "text_list": texts, "image_info": images},
    st.dictionaries(KEYS, VALUES, max_size=2),
    st.lists(STRINGS, min_size=1, max_size=3),
    IMAGES,
)


def restored(raw: bytes) -> Any:
    """What is left of a document after the cut, decoded, with the pictures in their places."""
    cut = cut_pictures(raw)

    def put_back(value: Any) -> Any:
        if isinstance(value, str):
            return bytes(cut.picture(value)).decode()
        if isinstance(value, list):
            return [put_back(one) for one in value]
        if isinstance(value, dict):
            return {key: put_back(one) for key, one in value.items()}
        return value

    return put_back(json.loads(cut.rest))


@settings(max_examples=150, deadline=None)
@given(written(VALUES | DOCUMENTS))
@example(rb'{"x":{"image_base64":"AAAA"},"y":"\u007f0"}')
@example(rb'{"x":{"image_base64":"AAAA"},"image\u005fbase64":"\u007F0"}')
@example(rb'{"a\"image_base64": "AAAA", "image_base64" : "A\/\u002bA", "b": "image_base64"}')
@example(rb'{"image_base64":"AAAA","image_base64":"BBBB"}')
def test_the_rest_and_the_pictures_are_what_json_reads_of_the_whole(raw: bytes) -> None:
    assert restored(raw) == json.loads(raw)


def texts_of(pictures: list[Base64 | memoryview | None]) -> list[str | None]:
    return [bytes(one.text).decode() if isinstance(one, Base64) else None for one in pictures]


@settings(max_examples=100, deadline=None)
@given(written(DOCUMENTS))
@example(
    rb'{"text_list":["a"],"image_info":[{"image\u005fbase64":"\u007f0"}],"image_base64":"AAAA"}'
)
@example(rb'{"text_list":["a"],"image_info":[{"image_base64":"A\/\u002bA"},{"image_base64":"A"}]}')
def test_trainer_and_validator_read_the_pictures_that_json_reads(raw: bytes) -> None:
    told = json.loads(raw)
    pictures = [image.get("image_base64") for image in told["image_info"]]
    record = read_record({"json": memoryview(raw)}, "interleaved")
    parsed = parse_document(raw)
    assert texts_of(record.images) == pictures
    validated = [None if one is None else bytes(one).decode() for one in parsed.payloads]
    assert validated == pictures
    assert record.texts == parsed.document.text_list == told["text_list"]


@pytest.mark.parametrize(
    "raw",
    [b'{"text_list":["a"],"image_info":[{"image_base64":"AA', b'{"image_base64":', b"", b"\x7f"],
)
def test_what_is_cut_off_is_refused_by_both(raw: bytes) -> None:
    with pytest.raises(UnusableError):
        read_record({"json": memoryview(raw)}, "interleaved")
    with pytest.raises(Unreadable):
        parse_document(raw)


def test_what_is_left_is_small() -> None:
    document = make_document(1, images=3)
    rest, pictures = cut_pictures(encode(document))
    assert len(rest) < 1500
    assert [bytes(one).decode() for one in pictures] == [
        image["image_base64"] for image in document["image_info"]
    ]


def test_one_escape_keeps_no_other_picture_from_being_cut() -> None:
    rest, pictures = cut_pictures(rb'[{"image_base64":"A\/A="},{"image_base64":"BBBB"}]')
    assert [bytes(one) for one in pictures] == [b"BBBB"]
    assert b"BBBB" not in rest
    assert re.search(rb"A\\/A=", rest)
    assert msgspec.json.decode(rest)[0] == {"image_base64": "A/A="}
