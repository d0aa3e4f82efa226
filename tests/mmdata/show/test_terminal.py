"""Samples in a terminal: everything is there, fits the width, and no data acts on the screen."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from mmdata.cli.main import main
from mmdata.show.terminal import show_in_terminal
from mmdata.show.text import show_json
from tests.shard_factory import encode, foreign, make_dataset, make_document, make_pairs, make_tar

HOSTILE = "a\x1b[2Jb\x9b31m [red]x[/red] \u202eevil\r\nc"


@dataclass
class Options:
    shards: tuple[str, ...]
    key: str | None = None
    random: int | None = None
    seed: int = 0
    extract: str | None = None


def shown(options: Options, *, preview: bool = False, width: int = 80) -> str:
    sink = io.StringIO()
    console = Console(
        file=sink,
        width=width,
        height=40,
        force_terminal=preview,
        color_system="truecolor" if preview else None,
    )
    show_in_terminal(options, console, preview=preview)
    return sink.getvalue()


def hostile_shard(folder: Path) -> Path:
    document = foreign(make_document(1, images=1, sentences=1))
    document["text_list"] = [HOSTILE]
    document["url"] = HOSTILE
    document["image_info"][0]["image_name"] = HOSTILE
    (folder / "0.tar").write_bytes(make_tar([("k.json", encode(document))]))
    return folder / "0.tar"


def test_sentences_with_their_pictures_below(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    document = make_document(0, kinds=("jpeg", "png", "webp"), images=3)
    lines = shown(Options((str(tmp_path),)), width=200).splitlines()
    places = {line.strip(): number for number, line in enumerate(lines)}
    for number, sentence in enumerate(document["text_list"]):
        start = places[f"[{number}] {sentence}"]
        below = [image for image in document["image_info"] if image["matched_text_index"] == number]
        for image, line in zip(below, lines[start + 1 :: 2], strict=False):
            assert image["image_name"] in line
            assert f"similarity {image['matched_sim']:.4f}" in line
    assert "source: docs_shard_0_v2.jsonl.zip > docs_shard_0_v2.jsonl, record 0" in places
    assert any("━" in line for line in lines)


def test_previews_are_drawn_and_fit(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    with_pictures = shown(Options((str(tmp_path),)), preview=True)
    assert with_pictures.count("▀") >= 3 * 24 * 8
    assert "▀" not in shown(Options((str(tmp_path),)))
    for width in (20, 40, 80):
        text = shown(Options((str(tmp_path),)), width=width)
        assert max(map(len, text.splitlines())) <= width


def test_nothing_of_the_data_acts_on_the_terminal(tmp_path: Path) -> None:
    options = Options((str(hostile_shard(tmp_path)),))
    text = shown(options, width=400)
    assert not set(text) & {"\x1b", "\x9b", "\r", "\u202e"}
    assert "[red]x[/red]" in text  # no markup either


def test_what_cannot_be_decoded_is_said_in_its_place(tmp_path: Path) -> None:
    document = foreign(make_document(1, images=2, sentences=2))
    document["image_info"][0]["image_base64"] = "PGh0bWw+"
    document["image_info"][1] = {"image_name": "a", "matched_text_index": 9}
    (tmp_path / "0.tar").write_bytes(make_tar([("k.json", encode(document)), ("l.json", b"[]")]))
    text = shown(Options((str(tmp_path),)), preview=True, width=200)
    assert "not-an-image: HTML" in text
    assert "[9] (there is no such sentence)" in text
    assert "no bytes" in text
    broken = shown(Options((str(tmp_path),), key="l"))
    assert "not a document: JSON006" in " ".join(broken.split())


def test_pairs(tmp_path: Path) -> None:
    text = shown(Options((str(make_pairs(tmp_path)),)), preview=True, width=120)
    assert "caption 0" in text
    assert "▀" in text


class TestJson:
    def test_a_line_a_sample(self, tmp_path: Path) -> None:
        make_dataset(tmp_path)
        lines = show_json(Options((str(tmp_path),), random=4)).splitlines()
        samples = [json.loads(line) for line in lines]
        assert len(samples) == 4
        document = make_document(int(samples[0]["key"]), kinds=("jpeg", "png", "webp"), images=3)
        assert samples[0]["sentences"] == document["text_list"]
        assert [image["sentence"] for image in samples[0]["images"]] == [
            image["matched_text_index"] for image in document["image_info"]
        ]
        assert samples[0]["source"]["file"] == "docs_shard_0_v2.jsonl.zip"

    def test_it_is_ascii_and_keeps_the_text(self, tmp_path: Path) -> None:
        line = show_json(Options((str(hostile_shard(tmp_path)),)))
        assert line.isascii()
        assert line.count("\n") == 1
        assert "\x1b" not in line
        assert json.loads(line)["sentences"] == [HOSTILE]


def test_pictures_are_drawn_on_a_terminal_unless_they_are_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pairs(tmp_path)
    assert main(["show", str(tmp_path), "--no-preview"]) == 0
    plain = capsys.readouterr().out
    assert main(["show", str(tmp_path), "--preview"]) == 0
    drawn = capsys.readouterr().out
    assert main(["show", str(tmp_path), "--preview", "--json"]) == 2
    assert "▀" in drawn
    assert "▀" not in plain
    said = "mmdata: --preview and --json: choose one, they contradict\n"
    assert capsys.readouterr().err == said
