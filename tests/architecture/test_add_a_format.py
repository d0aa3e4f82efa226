"""The recipe "to add an input format" of docs/architecture.md, done once: captions of photographs.

A reader and a row of the table of formats; nothing else of the packages knows of it. The name for
`--format` is a further word in the options of convert-custom.
"""

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from mmdata.shards.reader import ShardReader
from mmdata.sources.base import SourceDocument, SourceImage
from mmdata.sources.conversations.formats import (
    FORMATS,
    Fields,
    Reading,
    RecordFormat,
    document_of,
    without,
)
from mmdata.sources.conversations.placing import Utterance
from pipelines.custom.options import ConvertCustom, CustomFormat
from pipelines.custom.run import convert_custom
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.shard_factory import make_image


class Photograph(msgspec.Struct):
    photograph: str
    captions: list[str]


def read_photograph(record: bytes, fields: Fields, reading: Reading) -> SourceDocument:
    """The picture goes with the first of its captions."""
    read = msgspec.json.decode(record, type=Photograph)
    first, *more = read.captions
    turns = [Utterance("", [SourceImage(read.photograph, {}), first])]
    turns += [Utterance("", [caption]) for caption in more]
    return document_of(turns, (), without(fields, ("photograph", "captions")), reading)


def test_a_row_of_the_table_makes_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    format_of_photographs = RecordFormat(lambda fields: "photograph" in fields, read_photograph)
    monkeypatch.setitem(FORMATS, "photographs", format_of_photographs)
    images = tmp_path / "images"
    images.mkdir()
    records = []
    for number in range(3):
        (images / f"{number}.jpg").write_bytes(make_image(number))
        captions = [f"Photograph {number}.", "Seen again."]
        records.append({"photograph": f"{number}.jpg", "captions": captions, "licence": number})
    inputs = tmp_path / "photographs.jsonl"
    inputs.write_text("".join(json.dumps(record) + "\n" for record in records))
    output = str(tmp_path / "out")
    options = ConvertCustom(inputs=(str(inputs),), image_root=str(images), output=output, workers=0)
    assert convert_custom(options, quiet=True).exit_code == 0
    with ShardReader(f"{output}/000000000.tar") as reader:
        documents = [json.loads(bytes(sample.members["json"])) for sample in reader]
    assert [one["text_list"] for one in documents] == [record["captions"] for record in records]
    assert [one["image_info"][0]["matched_text_index"] for one in documents] == [0, 0, 0]
    assert [one["image_info"][0]["image_name"] for one in documents] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [one["licence"] for one in documents] == [0, 1, 2]
    assert validate(Validate(shards=(output,), workers=0)).exit_code == 0


def test_every_format_has_a_name_for_the_command_line() -> None:
    assert set(get_args(CustomFormat)) == {"auto", *FORMATS}
