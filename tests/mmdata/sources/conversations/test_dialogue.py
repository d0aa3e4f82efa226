"""What says "image" in a turn is read, stands for one of the list, or is dropped with its keys."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.base import RecordDropped, SourceDocument, SourceImage
from mmdata.sources.conversations.formats import Reading, parse_record
from tests.corpus import picture

PICTURE = picture(1)
B64 = base64.b64encode(PICTURE).decode()
SAFE = base64.urlsafe_b64encode(PICTURE).decode().rstrip("=")
URI = f"data:image/jpeg;base64,{B64}"
EMBEDDED = object()


def parsed(*turns: Any, **fields: Any) -> SourceDocument:
    """A record of user and assistant in turn; a turn is its content."""
    roles = ["user", "assistant"] * len(turns)
    messages = [
        turn if isinstance(turn, dict) else {"role": role, "content": turn}
        for role, turn in zip(roles, turns, strict=False)
    ]
    record = {"messages": messages, **fields}
    return parse_record(json.dumps(record).encode(), Reading())


def names(document: SourceDocument) -> list[str]:
    return [image.name for image in document.images]


def asked(part: Any, **fields: Any) -> SourceDocument:
    """A part before a question, and an answer."""
    return parsed([part, {"type": "text", "text": "What?"}], "This.", **fields)


#: A part, and the name of the image that it is.
READ: list[tuple[dict[str, Any], object]] = [
    ({"type": "image", "path": "a.jpg"}, "a.jpg"),
    ({"type": "image", "image_path": "a.jpg"}, "a.jpg"),
    ({"type": "image", "file_name": "a.jpg"}, "a.jpg"),
    ({"type": "image", "url": "https://e.org/a.jpg"}, "https://e.org/a.jpg"),
    ({"type": "image", "url": "https://e.org/a.jpg", "path": "a.jpg"}, "a.jpg"),
    ({"type": "image", "url": URI}, EMBEDDED),
    ({"type": "image", "url": f"DATA: image/jpeg ; charset=x ; Base64 , {B64}"}, EMBEDDED),
    ({"type": "image", "base64": B64}, EMBEDDED),
    ({"type": "image", "base64": SAFE}, EMBEDDED),
    ({"type": "image", "base64": URI}, EMBEDDED),
    ({"type": "image", "data": B64, "mime_type": "image/jpeg"}, EMBEDDED),
    ({"type": "image", "data": "a.jpg"}, "a.jpg"),
    ({"type": "image", "bytes": B64, "path": None}, EMBEDDED),
    ({"type": "image", "bytes": None, "path": "a.jpg"}, "a.jpg"),
    ({"type": "image", "image": "a.jpg"}, "a.jpg"),
    ({"type": "image", "image": B64}, EMBEDDED),
    ({"type": "image", "image": {"path": "a.jpg"}}, "a.jpg"),
    ({"type": "image", "source": "a.jpg"}, "a.jpg"),
    ({"type": "image", "source": {"type": "url", "url": "https://e.org/a"}}, "https://e.org/a"),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": B64}},
     EMBEDDED),
    ({"type": "image_url", "image_url": "a.jpg"}, "a.jpg"),
    ({"type": "image_url", "image_url": URI}, EMBEDDED),
    ({"type": "image_url", "image_url": {"url": URI, "detail": "low"}}, EMBEDDED),
    ({"type": "image_url", "image_url": {"url": B64}}, EMBEDDED),
    ({"type": "input_image", "image_url": URI}, EMBEDDED),
    ({"type": "IMAGE", "path": "a.jpg"}, "a.jpg"),
    ({"type": "image", "text": "", "path": "a.jpg"}, "a.jpg"),
    ({"type": "image", "text": None, "image": "a.jpg", "index": None}, "a.jpg"),
    ({"type": None, "image": "a.jpg"}, "a.jpg"),
    ({"image": "a.jpg"}, "a.jpg"),
    ({"image_url": {"url": URI}}, EMBEDDED),
    ({"inline_data": {"mime_type": "image/jpeg", "data": B64}}, EMBEDDED),
    ({"type": "text", "text": " ", "image": "a.jpg"}, "a.jpg"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "name"), READ)
def test_every_kind_of_part_is_an_image_where_it_stands(part: dict[str, Any], name: object) -> None:
    document = asked(part)
    (image,) = document.images
    assert (document.matched, document.text_list[0].strip()) == ([0], "What?")
    assert image.problem == ""
    if name is EMBEDDED:
        assert base64.b64decode(image.embedded.replace("-", "+").replace("_", "/") + "==")
        assert image.name == "embedded-0.jpg"
    else:
        assert (image.name, image.embedded) == (name, "")
    assert document.notes == []


@pytest.mark.parametrize(
    "reference", [part for part, _ in READ if not str(part.get("text", "")).strip()][:20]
)
def test_the_same_objects_are_images_in_the_records_list(reference: dict[str, Any]) -> None:
    document = asked("<image>", images=[reference])
    assert (len(document.images), document.images[0].problem) == (1, "")


#: Parts that say "image" and hold none, with a key that is told.
UNREADABLE = [
    ({"type": "image"}, "type"),
    ({"type": "image", "image": ""}, "image"),
    ({"type": "image", "file_id": "file-7"}, "file_id"),
    ({"type": "image", "source": {"type": "file", "file_id": "file-7"}}, "file_id"),
    ({"type": "image", "bytes": [1, 2]}, "bytes"),
    ({"type": "input_image", "file_id": "file-7", "detail": "auto"}, "file_id"),
    ({"type": "image", "index": 3}, "index: expected"),
    ({"type": "image", "index": -1}, "index: expected"),
    ({"type": "image", "index": True}, "index: expected"),
    ({"type": "image", "index": "b"}, "index: expected"),
    ({"type": "image", "text": ""}, "text"),
    ({"type": "image", "url": "data:image/png,abc"}, "base64"),
]


@pytest.mark.parametrize(("part", "told"), UNREADABLE)
def test_a_part_that_holds_no_image_is_a_dropped_image_with_its_keys(
    part: dict[str, Any], told: str
) -> None:
    document = asked(part)
    (image,) = document.images
    assert (image.name, image.embedded, document.matched) == ("", "", [0])
    assert "$.messages[0].content[0]" in image.problem
    assert told in image.problem


@pytest.mark.parametrize(("part", "told"), UNREADABLE[:10])
def test_it_moves_no_other_picture(part: dict[str, Any], told: str) -> None:
    """The list's images are all spoken for by other parts."""
    document = parsed(
        [{"type": "image", "index": 0}, {"type": "text", "text": "This?"}],
        "Yes.",
        [part, {"type": "text", "text": "That?"}],
        "No.",
        [{"type": "image", "index": 1}, {"type": "text", "text": "And that?"}],
        images=["a.jpg", "b.jpg"],
    )
    assert (names(document), document.matched) == (["a.jpg", "b.jpg", ""], [0, 4, 2])
    assert told in document.images[2].problem


def test_of_parts_without_a_name_the_k_th_is_the_k_th_of_the_list() -> None:
    document = parsed(
        [{"type": "image"}, {"type": "image", "foo": 1}, {"type": "text", "text": "Which?"}],
        "The first.",
        images=["a.jpg", "b.jpg"],
    )
    assert (names(document), document.matched, document.notes) == (["a.jpg", "b.jpg"], [0, 0], [])


def test_one_that_may_say_which_it_is_gives_way_to_one_that_does_not() -> None:
    document = parsed(
        [{"type": "image", "file_id": "x"}, {"type": "text", "text": "This?"}],
        "Yes.",
        [{"type": "image"}, {"type": "text", "text": "That?"}],
        images=["a.jpg"],
    )
    assert (names(document), document.matched) == (["a.jpg", ""], [2, 0])


def test_an_index_points_into_the_list_whatever_the_order() -> None:
    document = parsed(
        [{"type": "image", "index": 1, "text": None}, {"type": "text", "text": "About b?"}],
        "B.",
        [{"type": "image", "index": 0, "text": ""}, {"type": "text", "text": "About a?"}],
        images=["a.jpg", "b.jpg"],
    )
    assert (names(document), document.matched, document.notes) == (["a.jpg", "b.jpg"], [2, 0], [])


@pytest.mark.parametrize("as_written", [int, str, float])
def test_a_table_may_have_made_an_index_a_text_or_a_float(as_written: type) -> None:
    document = parsed(
        [{"type": "image", "index": as_written(1)}, {"type": "text", "text": "About b?"}],
        "B.",
        [{"type": "image", "index": as_written(0)}, {"type": "text", "text": "About a?"}],
        images=["a.jpg", "b.jpg"],
    )
    assert (names(document), document.matched, document.notes) == (["a.jpg", "b.jpg"], [2, 0], [])


def test_an_image_that_a_part_holds_comes_before_its_index() -> None:
    """Some services number the images of an answer beside them."""
    document = asked({"type": "image_url", "image_url": {"url": URI}, "index": 0})
    assert (document.images[0].problem, document.images[0].embedded != "") == ("", True)
    document = asked({"type": "image", "image": "own.jpg", "index": 0}, images=["a.jpg"])
    assert names(document) == ["a.jpg", "own.jpg"]


@pytest.mark.parametrize("reference", ["a.jpg", URI, {"path": "a.jpg"}])
def test_a_part_that_holds_an_image_of_the_list_is_that_image(reference: object) -> None:
    part = {"type": "image", "image": reference}
    document = asked(part, images=["first.jpg", reference])
    assert (len(document.images), document.matched) == (2, [0, 0])
    alone = asked(part, images=[reference])
    assert (len(alone.images), alone.notes) == (1, [])
    again = parsed([part, part, {"type": "text", "text": "What?"}], images=[reference])
    assert len(again.images) == 2


def test_a_part_may_hold_a_list_of_images() -> None:
    for name in ("image", "images"):
        document = asked({"type": "image", name: ["a.jpg", {"path": "b.jpg"}, None]})
        assert names(document) == ["a.jpg", "b.jpg", ""]
        assert f"content[0].{name}[2]" in document.images[2].problem


def test_an_index_without_a_list_is_told_so() -> None:
    (image,) = asked({"type": "image", "index": 0}).images
    assert "expected none, without a list of images, got 0" in image.problem


def test_an_index_and_parts_without_one_share_the_list() -> None:
    document = parsed(
        [{"type": "image", "index": 2}, {"type": "text", "text": "c?"}],
        "C.",
        [{"type": "image"}, {"type": "text", "text": "a?"}],
        "A.",
        "<image>\nb?",
        images=["a.jpg", "b.jpg", "c.jpg"],
    )
    assert document.matched == [2, 4, 0]


def test_a_part_that_is_both_is_an_image_and_a_text() -> None:
    document = parsed([{"type": "text", "text": "What?", "image": "a.jpg"}], "This.")
    assert (names(document), document.text_list) == (["a.jpg"], ["What?", "This."])


def test_a_part_may_stand_alone_and_a_text_may_be_a_part() -> None:
    document = parsed({"role": "user", "content": {"type": "image", "path": "a.jpg"}}, ["This."])
    assert (names(document), document.text_list, document.matched) == (
        ["a.jpg"],
        ["", "This."],
        [1],
    )


@pytest.mark.parametrize("kind", ["text", None])
def test_a_text_about_media_types_is_a_text(kind: str | None) -> None:
    part = {"type": kind, "text": '"image/png" is one of them.'}
    document = parsed([part], "Yes.", images=["a.jpg"])
    assert document.text_list[0] == part["text"]
    assert [note for note, _ in document.notes] == ["no-tags"]


def test_the_nulls_of_a_table_say_nothing() -> None:
    """Parquet gives every part the keys of all parts."""
    empty = {"image": None, "image_url": None, "index": None, "path": None}
    document = parsed(
        [{"type": "image", "text": None, **empty}, {"type": "text", "text": "What?", **empty}],
        [{"type": "text", "text": "This.", **empty}],
        images=["a.jpg"],
    )
    assert (names(document), document.text_list) == (["a.jpg"], ["What?", "This."])
    assert document.notes == []


@pytest.mark.parametrize("kind", ["video", "audio", "file"])
def test_what_is_no_image_is_refused_by_its_type(kind: str) -> None:
    with pytest.raises(RecordDropped, match=f"bad-schema.*content.0.*got '{kind}'"):
        asked({"type": kind, kind: "v.mp4"})


def test_a_tag_in_the_text_beside_an_image_part_marks_its_place() -> None:
    document = parsed([{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "<image> A?"}])
    assert (names(document), document.text_list) == (["a.jpg"], ["A?"])


def test_a_turns_own_images_stand_in_it() -> None:
    turns = [
        {"role": "user", "content": "What?", "images": [B64]},
        {"role": "assistant", "content": "This."},
        {"role": "user", "content": "And <image> here?", "image": "b.jpg"},
    ]
    document = parsed(*turns)
    assert (names(document), document.matched) == (["embedded-0.jpg", "b.jpg"], [0, 2])
    assert document.text_list == ["What?", "This.", "And here?"]
    listed = parsed(turns[0], turns[1], images=[B64])
    assert len(listed.images) == 1


def test_text_may_stand_in_place_of_value() -> None:
    record = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "text": "A"}]}
    assert parse_record(json.dumps(record).encode(), Reading()).text_list == ["Q", "A"]
    with pytest.raises(RecordDropped, match=r"conversations\[1\].*got the keys from, reply"):
        parse_record(json.dumps(record).replace('"text"', '"reply"').encode(), Reading())


INLINE = [
    ("Picture 1: <img>dogs/a.jpg</img>\nWhich?", "Picture 1:\nWhich?", "dogs/a.jpg"),
    ("<img> a b.png </img> Which?", "Which?", "a b.png"),
    ("<IMG>https://e.org/a</IMG>\nWhich?", "Which?", "https://e.org/a"),
    ("<image>dogs/a</image>\nWhich?", "Which?", "dogs/a"),
    (f"<img>{URI}</img>\nWhich?", "Which?", "embedded-0.jpg"),
    (f"<img>\n{B64}\n</img>\nWhich?", "Which?", "embedded-0.jpg"),
]


@pytest.mark.parametrize(("text", "rest", "name"), INLINE)
def test_a_path_between_tags_is_the_picture_there(text: str, rest: str, name: str) -> None:
    document = parsed("Hello", "Hello.", text, "That.")
    assert (names(document), document.matched) == ([name], [2])
    assert (document.text_list[2], document.notes) == (rest, [])


def test_a_path_that_is_in_the_list_is_that_picture() -> None:
    document = parsed("<img>b.jpg</img> b?", "B.", "<img>a.jpg</img> a?", images=["a.jpg", "b.jpg"])
    assert (names(document), document.matched, document.notes) == (["a.jpg", "b.jpg"], [2, 0], [])


def test_words_between_tags_are_words() -> None:
    document = parsed("<img> What is it? </img>", "A dog.", images=["a.jpg"])
    assert (names(document), document.matched) == (["a.jpg"], [0])
    assert "What is it?" in document.text_list[0]


def test_html_in_an_answer_stays_where_the_record_has_its_pictures() -> None:
    answer = "Write <img>logo.png</img> or <image>."
    document = parsed("<image>\nHow?", answer, images=["a.jpg"])
    assert (names(document), document.text_list[1], document.notes) == (["a.jpg"], answer, [])


BARE = st.sampled_from([{"type": "image"}, {"type": "image", "text": ""}])
NAMED = st.integers(0, 9).map(lambda k: {"type": "image", "path": f"own{k}.jpg"})
POINTED = st.integers(0, 5).map(lambda k: {"type": "image", "index": k})
TEXTS = st.sampled_from([{"type": "text", "text": "a"}, {"type": "text", "text": "b <image>"}])


@given(
    parts=st.lists(st.one_of(BARE, NAMED, POINTED, TEXTS), max_size=8),
    count=st.integers(0, 4),
)
def test_every_image_part_is_an_image_of_the_document(
    parts: list[dict[str, Any]], count: int
) -> None:
    """And each of the list is there once, first, in its order."""
    listed = [f"{k}.jpg" for k in range(count)]
    document = parsed([*parts, {"type": "text", "text": "What?"}], "This.", images=listed)
    assert names(document)[:count] == listed
    said = sum(part["type"] == "image" for part in parts)
    held = [part["path"] for part in parts if "path" in part]
    rest = document.images[count:]
    assert [image.name for image in rest if image.name] == held
    assert len(rest) <= said <= len(document.images)
    assert all(bool(image.name) != bool(image.problem) for image in rest)
    assert document.matched == [0] * len(document.images)


def test_fields_beside_the_picture_are_carried_along_and_payloads_are_not() -> None:
    part = {"type": "image_url", "id": 3, "image_url": {"url": URI, "detail": "low"}}
    (image,) = asked(part).images
    assert isinstance(image, SourceImage)
    fields = {name: msgspec.json.decode(raw) for name, raw in image.fields.items()}
    assert fields == {"id": 3, "detail": "low"}
