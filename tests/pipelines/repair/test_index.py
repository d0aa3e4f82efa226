"""`index`: shards of others get what stands beside ours, and the tars stay as they are.

Run: pytest tests/pipelines/repair/test_index.py
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmdata.catalogue.shards import catalogue_stream
from mmdata.errors import BadInputError, UserError
from mmdata.shards.reader import ShardReader
from pipelines.align.run import _read_inputs, _read_manifest
from pipelines.repair.index import IndexResult, index
from pipelines.repair.options import Index
from pipelines.report.options import Report
from pipelines.report.run import report
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.shard_factory import (
    encode,
    flip,
    foreign,
    make_dataset,
    make_document,
    make_image,
    make_pairs,
    make_tar,
    sha256,
)


def run(folder: Path, **options: Any) -> IndexResult:
    return index(Index(**({"shards": (str(folder),), "workers": 0} | options)))


def openflamingos(folder: Path, shards: int = 2) -> Path:
    """Shards as OpenFlamingo's script writes them, with headers of webdataset's writer."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        documents = [make_document(10 * shard + number) for number in range(3)]
        members = [(f"{shard}x{n}.json", encode(foreign(d))) for n, d in enumerate(documents)]
        (folder / f"{shard:09d}.tar").write_bytes(make_tar(members))
    return folder


def tars(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()) for path in folder.glob("*.tar")}


class TestOpenFlamingos:
    def test_everything_is_beside_them_and_validates(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        before = tars(folder)
        result = run(folder)
        assert (result.exit_code, result.shards, result.tally.images) == (0, 2, 12)
        assert tars(folder) == before
        assert {path.name for path in folder.iterdir()} == {
            *before,
            *(f"{n:09d}{e}" for n in (0, 1) for e in (".json", ".rejects.jsonl")),
            *(f"{n:09d}.samples.parquet" for n in (0, 1)),
            "manifest.json",
            "sizes.json",
        }
        found = validate(Validate(shards=(str(folder),), workers=0))
        assert found.findings == []
        sizes = json.loads((folder / "sizes.json").read_text())
        assert sizes == {"000000000.tar": 3, "000000001.tar": 3}

    def test_rows_say_what_is_in_the_documents(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in", shards=1)
        run(folder)
        (row, *_) = pq.read_table(folder / "000000000.samples.parquet").to_pylist()
        document = make_document(0)
        raw = encode(foreign(document))
        images = document["image_info"]
        assert (row["key"], row["sha256"], row["source_member"]) == ("0x0", sha256(raw), "0x0.json")
        assert row["matched"] == [image["matched_text_index"] for image in images]
        assert row["similarity"] == [image["matched_sim"] for image in images]
        assert row["image_sha256"] == [image["sha256"] for image in images]
        assert (row["width"], row["height"], row["format"]) == ([24, 24], [16, 16], ["jpeg"] * 2)
        tar = (folder / "000000000.tar").read_bytes()
        assert tar[row["offset"] : row["offset"] + row["size"]] == raw

    def test_reader_and_trainer_take_them(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        run(folder)
        with ShardReader(folder / "000000001.tar") as reader:
            assert reader.keys == ["1x0", "1x1", "1x2"]
            assert json.loads(bytes(reader.read("1x1").members["json"]))["text_list"]
        catalogue = catalogue_stream("a", [str(folder)])
        assert catalogue.num_samples == 6
        assert catalogue.rule() == "interleaved"

    def test_a_change_of_the_tar_shows_from_then_on(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        run(folder)
        flip(folder / "000000001.tar", 700)
        found = validate(Validate(shards=(str(folder),), workers=0))
        assert {"SIDE005", "SIDE009"} <= {count.code for count in found.counts}

    def test_what_cannot_be_read_is_in_the_table_and_counted(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        members = [("a.json", b"{"), ("b.json", encode(foreign(make_document(1))))]
        (tmp_path / "in" / "0.tar").write_bytes(make_tar(members))
        result = run(tmp_path / "in")
        assert (result.exit_code, result.tally.notes) == (0, {"unreadable": 1})
        with ShardReader(tmp_path / "in" / "0.tar") as reader:
            assert reader.keys == ["a", "b"]


def without_pictures(seed: int) -> bytes:
    """A document whose first image lost its bytes, and whose second has none that are base64."""
    document = foreign(make_document(seed))
    del document["image_info"][0]["image_base64"]
    document["image_info"][1]["image_base64"] = "***"
    return encode(document)


def test_pictures_that_are_not_there_are_equal_to_nothing(tmp_path: Path) -> None:
    """With the table as without it."""
    members = [(f"{n}.json", without_pictures(n)) for n in range(4)]
    (tmp_path / "0.tar").write_bytes(make_tar(members))
    reports = []
    for _ in range(2):
        options = Validate(shards=(str(tmp_path),), workers=0, across=True, level="structure")
        across = validate(options).across
        assert across is not None
        reports.append((across.documents, across.images, across.repeated_images))
        run(tmp_path)
    assert reports == [(4, 0, 0), (4, 0, 0)]
    row = pq.read_table(tmp_path / "0.samples.parquet").to_pylist()[0]
    assert row["image_sha256"] == ["", ""]


class TestPairs:
    def test_everything_is_beside_them_and_validates(self, tmp_path: Path) -> None:
        make_pairs(tmp_path)
        (tmp_path / "00000_stats.json").write_text("{}")
        assert run(tmp_path).exit_code == 0
        assert validate(Validate(shards=(str(tmp_path),), workers=0)).findings == []
        rows = pq.read_table(tmp_path / "00000.samples.parquet").to_pylist()
        assert [row["sha256"] for row in rows] == [sha256(make_image(n)) for n in range(3)]
        assert rows[0]["text_sha256"] == sha256(b"caption 0\n")
        catalogue = catalogue_stream("a", [str(tmp_path)])
        assert catalogue.rule() == "caption"

    def test_a_report_shows_them(self, tmp_path: Path) -> None:
        """Their similarity is not recorded, and their text may stand before the picture."""
        members = [("a.txt", b"A barn."), ("a.jpg", make_image(1)), ("b.jpg", make_image(2))]
        (tmp_path / "0.tar").write_bytes(make_tar([*members, ("b.txt", b"A mill.")]))
        assert run(tmp_path).exit_code == 0
        page = tmp_path / "report.html"
        assert report(Report(shards=(str(tmp_path),), output=str(page), workers=0)).exit_code == 0
        shown = page.read_text()
        assert all(text in shown for text in ("A barn.", "A mill.", "image 0"))

    def test_a_sample_without_a_picture_fails_its_shard_alone(self, tmp_path: Path) -> None:
        make_pairs(tmp_path)
        (tmp_path / "00001.tar").write_bytes(make_tar([("x.txt", b"A")]))
        result = run(tmp_path)
        assert (result.exit_code, result.shards) == (1, 1)
        assert "x: expected a picture, got only txt" in result.failures[0][1]
        assert not (tmp_path / "manifest.json").exists()
        (tmp_path / "00001.tar").unlink()
        again = run(tmp_path)
        assert (again.exit_code, again.kept) == (0, 1)


class TestRun:
    def test_again_it_does_nothing(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        run(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert run(folder).kept == 2
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert run(folder, overwrite=True).kept == 0
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_what_changed_loses_energons_index(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        run(folder, energon=True)
        (folder / "000000001.tar").write_bytes(make_tar([("a.json", b"{}")]))
        run(folder)
        assert (folder / "000000000.tar.idx").exists()
        assert not (folder / "000000001.tar.idx").exists()
        assert not (folder / ".nv-meta" / ".info.json").exists()

    def test_damage_is_named(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        flip(folder / "000000000.tar", 100)
        result = run(folder)
        assert result.exit_code == 1
        assert "mmdata repair saves what can be saved" in result.failures[0][1]

    @pytest.mark.parametrize(
        ("members", "told"),
        [
            ([("a.json", b"{}"), ("a.json", b"{ }")], "two members are named 'a.json'"),
            ([("a.txt", b"A"), ("a.TXT", b"B"), ("a.jpg", b"")], "two members are named 'a.TXT'"),
            (
                [("a.jpg", b""), ("b.jpg", b""), ("a.txt", b"A"), ("b.txt", b"B")],
                "the members of a stand apart (bytes 512 and 1536), and so do those of 1 other",
            ),
            ([("a.json", b"{}"), ("b.json", b"{}"), ("a.cls", b"1")], "the members of a stand"),
        ],
    )
    def test_what_no_reader_agrees_on_is_no_sample(
        self, tmp_path: Path, members: list[tuple[str, bytes]], told: str
    ) -> None:
        (tmp_path / "0.tar").write_bytes(make_tar(members))
        result = run(tmp_path)
        assert (result.exit_code, result.shards, result.tally.documents) == (1, 0, 0)
        assert told in result.failures[0][1]
        assert "mmdata repair" in result.failures[0][1]
        assert not list(tmp_path.glob("*.json"))

    def test_a_tar_without_its_end(self, tmp_path: Path) -> None:
        (tmp_path / "0.tar").write_bytes(make_tar([("a.json", b"{}")])[:1024])
        result = run(tmp_path)
        assert result.exit_code == 1
        assert "it may have been cut here" in result.failures[0][1]

    def test_what_is_no_tar_promises_no_repair(self, tmp_path: Path) -> None:
        (tmp_path / "0.tar").write_bytes(gzip.compress(make_tar([("a.json", b"{}")])))
        (_, error), *_ = run(tmp_path).failures
        assert error.endswith("0.tar: not a tar: expected a tar header in the first 512 bytes, got "
                              "gzip-compressed data: unpack it first")  # fmt: skip

    def test_dots_in_names_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "0.tar").write_bytes(make_tar([("22.05.jpg", b""), ("22.05.txt", b"A")]))
        assert "'05.jpg' is an extension to readers" in run(tmp_path).failures[0][1]

    def test_both_layouts_in_one_folder(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        make_pairs(folder)
        with pytest.raises(UserError, match="holds documents and pairs"):
            run(folder)

    def test_a_part_of_a_folder_is_refused(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        with pytest.raises(UserError, match="1 of its tars are not named"):
            run(folder / "000000000.tar")

    def test_ours_get_energons_index_and_nothing_else(self, tmp_path: Path) -> None:
        make_dataset(tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(UserError, match="holds shards of ours"):
            run(tmp_path)
        assert run(tmp_path, energon=True).exit_code == 0
        after = {path.name for path in tmp_path.iterdir()}
        assert after - set(before) == {"000000000.tar.idx", "000000001.tar.idx", ".nv-meta"}
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        assert validate(Validate(shards=(str(tmp_path),), workers=0)).findings == []

    def test_indexed_shards_are_no_input_of_align(self, tmp_path: Path) -> None:
        folder = openflamingos(tmp_path / "in")
        run(folder)
        manifest = _read_manifest(str(folder))
        with pytest.raises(BadInputError, match="only indexed here; mmdata repair writes"):
            _read_inputs([str(folder / "000000000.tar")], manifest)

    @pytest.mark.ray
    @pytest.mark.slow
    @pytest.mark.matrix
    def test_workers_write_the_same(self, tmp_path: Path) -> None:
        run(openflamingos(tmp_path / "here"), energon=True)
        run(openflamingos(tmp_path / "there"), energon=True, workers=2)
        for path in (tmp_path / "here").iterdir():
            if path.is_file():
                assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()
