"""convert-laion on tables as people have them: rows in are rows out and drops, none is merged."""

import gzip
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.cli.main import main
from mmdata.errors import BadInputError, UserError
from pipelines.conversion.result import ConversionResult
from pipelines.laion.run import convert_laion
from tests.corpus import rejects_of
from tests.laion_factory import options, pairs
from tests.web import Web, serve


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serve() as running:
        yield running


def convert(source: Path, output: Path, **more: Any) -> ConversionResult:
    return convert_laion(options(source, output, layout="pairs", **more), quiet=True)


def captions(output: Path) -> list[str]:
    return [sample["txt"].decode() for sample in pairs(output).values()]


class TestDelimitedText:
    TEXTS = ('an inch: 5" nail', '"Hero" of the day', '"open', "plain", 'ends with a "')

    def test_a_quote_of_a_tsv_is_text(self, web: Web, tmp_path: Path) -> None:
        lines = ["caption\turl", *(f"{text}\t{web.url('/ok/1.jpg')}" for text in self.TEXTS)]
        (tmp_path / "a.tsv").write_text("\r\n".join(lines), newline="")
        result = convert(tmp_path / "a.tsv", tmp_path / "out")
        assert (result.tally.records, captions(tmp_path / "out")) == (5, list(self.TEXTS))

    def test_quoting_says_otherwise(self, web: Web, tmp_path: Path) -> None:
        url = web.url("/ok/1.jpg")
        (tmp_path / "a.tsv").write_text(f'caption\turl\n"two\nlines\t"""\t{url}\n')
        convert(tmp_path / "a.tsv", tmp_path / "out", quoting="double")
        assert captions(tmp_path / "out") == ['two\nlines\t"']
        (tmp_path / "a.csv").write_text(f'caption,url\n"open,{url}\n"b",{url}\n')
        convert(tmp_path / "a.csv", tmp_path / "none", quoting="none")
        assert captions(tmp_path / "none") == ['"open', '"b"']
        with pytest.raises(UserError, match="option quoting: was none"):
            convert(tmp_path / "a.csv", tmp_path / "none")

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ('"open,{}', "line 2: .* still open at the end of the file"),
            ('"open,{}\n' + "b,{}\n" * 50, "line 2: .* still open 500 bytes later"),
            ('"open,{}\nb,{}\nc",{}', "line 2: .* holds line 2, which reads as a row itself"),
        ],
    )
    def test_a_stray_quote_of_a_csv_is_refused_by_its_line(
        self, tmp_path: Path, row: str, problem: str
    ) -> None:
        text = "caption,url\n" + row.replace("{}", "http://127.0.0.1/1.jpg") + "\n"
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(BadInputError, match=problem):
            convert(tmp_path / "a.csv", tmp_path / "out", max_record_bytes=500)
        assert not (tmp_path / "out").exists()

    def test_what_reads_as_a_row_may_be_said_to_be_text(self, web: Web, tmp_path: Path) -> None:
        url = web.url("/ok/1.jpg")
        (tmp_path / "a.csv").write_text(f'url,caption\n{url},"a\nhttp://x,b"\n')
        with pytest.raises(BadInputError, match="--quoting double"):
            convert(tmp_path / "a.csv", tmp_path / "out")
        convert(tmp_path / "a.csv", tmp_path / "out", quoting="double")
        assert captions(tmp_path / "out") == ["a\nhttp://x,b"]

    def test_every_other_row_is_counted_by_its_line(self, web: Web, tmp_path: Path) -> None:
        url = web.url("/ok/1.jpg")
        rows = [f'"two\nlines",{url}', f'"a" b,{url}', "c", "", f"d,{url},e", f"f,{url}"]
        (tmp_path / "a.csv").write_text("\n".join(["caption,url", *rows, "x" * 900]))
        result = convert(tmp_path / "a.csv", tmp_path / "out", max_record_bytes=600)
        assert captions(tmp_path / "out") == ["two\nlines", "f"]
        assert result.tally.records == 6
        details = [line["detail"] for line in rejects_of(tmp_path / "out")]
        assert [detail.partition(";")[0] for detail in details] == [
            "line 4: text behind a closing quote",
            "line 5: expected 2 fields, got 1",
            "line 7: expected 2 fields, got 3",
            "expected at most 600 bytes, got 900",
        ]

    def test_a_table_resumes_where_it_stopped(self, web: Web, tmp_path: Path) -> None:
        rows = "".join(f'"row\n{k}",{web.url("/ok/1.jpg")}\n' for k in range(9))
        (tmp_path / "a.csv").write_text("caption,url\n" + rows)
        convert(tmp_path / "a.csv", tmp_path / "out", docs_per_shard=2, limit=4)
        result = convert(tmp_path / "a.csv", tmp_path / "out", docs_per_shard=2)
        assert (result.shards_kept, result.shards_written, result.complete) == (3, 2, True)
        assert captions(tmp_path / "out") == [f"row\n{k}" for k in range(9)]


class TestJsonLines:
    def test_a_first_line_without_a_url_is_one_drop(self, web: Web, tmp_path: Path) -> None:
        good = f'{{"caption": "a", "url": "{web.url("/ok/1.jpg")}"}}\n'
        (tmp_path / "a.jsonl").write_text('{"caption": "no address"}\n' + good * 2)
        result = convert(tmp_path / "a.jsonl", tmp_path / "out")
        assert (result.tally.documents, result.tally.documents_dropped) == (2, {"bad-schema": 1})


class TestCaptions:
    def test_of_a_list_the_first_is_taken_and_the_others_are_kept(
        self, web: Web, tmp_path: Path
    ) -> None:
        lists = [["", "one", "two"], ["only"], [], [7], "plain"]
        rows = [{"url": web.url("/ok/1.jpg"), "captions": texts} for texts in lists]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pq.write_table(pa.Table.from_pylist(rows[:3]), tmp_path / "b.parquet")
        result = convert(tmp_path / "a.jsonl", tmp_path / "out")
        assert captions(tmp_path / "out") == ["one", "only", "plain"]
        assert result.tally.documents_dropped == {"bad-schema": 1, "no-text": 1}
        assert result.tally.notes == {"several-captions": 1}
        first = json.loads(pairs(tmp_path / "out")["000000000000"]["json"])
        assert first["other_captions"] == ["two"]
        convert(tmp_path / "b.parquet", tmp_path / "b")
        assert captions(tmp_path / "b") == ["one", "only"]


@pytest.mark.parametrize(("method", "name"), [(9, "deflate64"), (93, "zstd"), (77, "unknown")])
def test_a_zip_that_is_packed_otherwise_is_named_by_its_method(
    method: int, name: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", "{}\n")
    data = bytearray((tmp_path / "a.jsonl.zip").read_bytes())
    for head, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(head) + place] = method
    (tmp_path / "a.jsonl.zip").write_bytes(data)
    with pytest.raises(BadInputError, match=rf"is compressed with {name} \(method {method}\)"):
        convert(tmp_path / "a.jsonl.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("convert-laion", "a.csv"),
        ("convert-laion", "a.jsonl"),
        ("convert-custom", "a.jsonl.gz"),
        ("convert-mmc4", "a.jsonl"),
        ("convert-mmc4", "a.jsonl.gz"),
    ],
)
def test_utf16_is_named_by_every_converter(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = '{"url": "http://x/1.jpg", "caption": "a"}\n'.encode("utf-16")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "images").mkdir()
    images = ["--images", str(tmp_path / "images")] if command == "convert-mmc4" else []
    output = ["--output", str(tmp_path / "out")]
    assert main([command, str(tmp_path / name), *images, *output, "--workers", "0"]) == 2
    assert "is UTF-16; make it UTF-8 (iconv -f UTF-16" in capsys.readouterr().err
