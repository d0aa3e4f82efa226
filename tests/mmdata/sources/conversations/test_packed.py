"""Lists that tables pack as text or as columns are read as the lists that they are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.sources.base import RecordDropped
from mmdata.sources.conversations.formats import Reading, parse_record

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A toy."}]
MMC4 = {"text_list": ["a"], "image_info": [{"image_name": "1.jpg"}], "similarity_matrix": [[0.5]]}


def parsed(record: Any) -> tuple[list[str], list[str]]:
    found = parse_record(json.dumps(record).encode(), Reading())
    return found.text_list, [image.name for image in found.images]


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize(
    "pack", [lambda rows: rows, json.dumps, columns, lambda rows: json.dumps(columns(rows))]
)
@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_turns(pack: Any, name: str) -> None:
    turns = TURNS
    if name == "messages":
        turns = [{"role": turn["from"], "content": turn["value"]} for turn in TURNS]
    record = {name: pack(turns), "images": pack([{"path": "a.jpg"}])}
    assert parsed(record) == (["What?", "A toy."], ["a.jpg"])


def test_documents_of_mmc4_and_obelics() -> None:
    assert parsed({name: json.dumps(value) for name, value in MMC4.items()}) == (["a"], ["1.jpg"])
    record = {"texts": '["a", null]', "images": '[null, "1.jpg"]'}
    assert parsed(record) == (["a"], ["1.jpg"])


@given(st.text(max_size=9))
def test_a_name_of_an_image_is_never_taken_for_a_list(name: str) -> None:
    try:
        listed = isinstance(json.loads(name), list | dict)
    except ValueError:
        listed = False
    if name and not listed and not name.lower().startswith("data:"):
        found = parse_record(
            json.dumps({"conversations": TURNS, "images": name}).encode(), Reading()
        )
        assert len(found.images) == 1


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("[{'from': 'human'}]", r"\$\.conversations: a text that is to hold a list: expected JSON"),
        ("words", r"\$\.conversations: a text that is to hold a list: .* got 'words'$"),
        ("", r"\$\.conversations: a text that is to hold a list: expected JSON, got ''$"),
        ('[{"from": NaN}]', "expected a finite number"),
        ({"from": ["a"], "value": ["b", "c"]}, "columns of one length, got 1 of from, 2 of value"),
        ({}, "Expected array, got object"),
        ("7", "Expected array, got str"),
    ],
)
def test_what_is_no_list_is_said(value: Any, detail: str) -> None:
    with pytest.raises(RecordDropped, match=detail) as caught:
        parsed({"conversations": value})
    assert caught.value.reason == "bad-schema"


ZOOM = {"name": "zoom", "arguments": '{"box": [1, "<image>"]}'}
CALL = {"type": "function", "function": ZOOM}
CALL_AS_TEXT = '{"name": "zoom", "arguments": {"box": [1, "<image>"]}}'


class TestCallsOfTools:
    def texts(self, **turn: Any) -> list[str]:
        user = {"role": "user", "content": "Look."}
        answer = {"role": "assistant", **turn}
        return parsed({"messages": [user, answer, {"role": "tool", "content": "ok"}]})[0]

    def test_a_turn_that_only_calls_is_its_calls(self) -> None:
        for more in ({"content": None}, {}, {"content": ""}, {"content": []}):
            assert self.texts(tool_calls=[CALL], **more) == ["Look.", CALL_AS_TEXT, "ok"]
        assert self.texts(content=None, function_call=ZOOM)[1] == CALL_AS_TEXT

    def test_calls_stand_behind_what_is_said(self) -> None:
        parts = [{"type": "text", "text": "Wait."}]
        for content in ("Wait.", parts):
            assert self.texts(content=content, tool_calls=[CALL] * 2)[1].split("\n") == [
                "Wait.", CALL_AS_TEXT, CALL_AS_TEXT
            ]  # fmt: skip

    def test_arguments_that_are_no_json_stay_text(self) -> None:
        for arguments in ("not json", "[" * 100_000):
            call = {"name": "f", "arguments": arguments}
            assert json.loads(self.texts(content=None, function_call=call)[1]) == call

    def test_nothing_at_all_is_a_drop_that_says_so(self) -> None:
        for content in ({"content": None}, {"content": None, "tool_calls": []}):
            with pytest.raises(RecordDropped, match=r"\$\.messages\[1\]: expected value or .*null"):
                self.texts(**content)
