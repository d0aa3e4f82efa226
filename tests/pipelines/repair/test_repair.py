"""`repair`: each damage is made in a real shard; what comes out is sound, and tells what is lost.

Run: pytest tests/pipelines/repair/test_repair.py
"""

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mmdata.errors import BadInputError, UserError
from pipelines.conversion.result import ConversionResult
from pipelines.laion.options import ConvertLaion
from pipelines.laion.run import convert_laion
from pipelines.mmc4.run import convert_mmc4
from pipelines.repair.options import Repair
from pipelines.repair.run import repair
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import documents_of, make_corpus, manifest_of, picture
from tests.laion_factory import write
from tests.shard_factory import (
    Dataset,
    encode,
    flip,
    foreign,
    make_dataset,
    make_document,
    make_image,
    make_pairs,
    make_shard_of,
    make_tar,
    sha256,
)

HOSTILE = Path(__file__).parents[2] / "assets" / "hostile_tar"


def mend(shards: Path, output: Path, **options: Any) -> ConversionResult:
    given = {"shards": (str(shards),), "output": str(output), "workers": 0} | options
    return repair(Repair(**given), quiet=True)


def mended(shards: Path, output: Path, **options: Any) -> ConversionResult:
    """Repair, and have the result validated: it must be without an error or a warning."""
    result = mend(shards, output, **options)
    assert (result.exit_code, result.complete) == (1 if result.lost else 0, True)
    if result.tally.records and not result.tally.documents:
        assert result.lost
    if result.plan.num_shards:
        report = validate(Validate(shards=(str(output),), workers=0))
        assert report.findings == []
    tally = result.tally
    assert tally.records == tally.documents + sum(tally.documents_dropped.values())
    assert tally.images_listed == tally.images + sum(tally.images_dropped.values())
    return result


def rejects(output: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted(output.glob("*.rejects.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def make_sound(folder: Path, *, shards: int = 2) -> Dataset:
    """Shards that our writer wrote, so that nothing but repair can make them differ."""
    dataset = make_dataset(folder.with_name("made"), shards=shards)
    mended(dataset.folder, folder)
    return Dataset(folder, dataset.documents)


class TestSound:
    def test_shards_of_ours_come_out_byte_for_byte(self, tmp_path: Path) -> None:
        dataset = make_sound(tmp_path / "in", shards=3)
        result = mended(tmp_path / "in", tmp_path / "out")
        for shard in range(3):
            assert (tmp_path / "out" / dataset.path(shard).name).read_bytes() == (
                dataset.path(shard).read_bytes()
            )
        assert rejects(tmp_path / "out") == []
        assert (result.tally.records, result.tally.images) == (9, 27)

    def test_what_our_converters_wrote_comes_out_byte_for_byte(self, tmp_path: Path) -> None:
        corpus = make_corpus(tmp_path / "corpus", records=9)
        convert_mmc4(corpus.options(tmp_path / "in", docs_per_shard=3, key_prefix="a-"), quiet=True)
        rows = [
            {"jpg": picture(n, kind="GIF" if n == 2 else "JPEG"), "caption": f"Picture {n}"}
            for n in range(4)
        ]
        options = ConvertLaion(
            inputs=(str(write(tmp_path / "a.parquet", rows)),),
            output=str(tmp_path / "pairs"),
            layout="pairs",
            fetcher="none",
            workers=0,
        )
        convert_laion(options, quiet=True)
        for folder in (tmp_path / "in", tmp_path / "pairs"):
            result = mended(folder, tmp_path / "out" / folder.name)
            assert (result.tally.notes, result.tally.images_dropped) == ({}, {})
            for tar in folder.glob("*.tar"):
                written = tmp_path / "out" / folder.name / tar.name
                assert written.read_bytes() == tar.read_bytes()

    def test_what_a_document_says_beside_is_kept_byte_for_byte(self, tmp_path: Path) -> None:
        """Roles of a dialogue, fields that nobody knows, and fields in another order."""
        documents = [make_document(number) for number in range(3)]
        documents[0]["roles"] = ["human"] * len(documents[0]["text_list"])
        documents[1] = {"study": {"site": [1, 2.50, None]}, **documents[1]}
        documents[2]["image_info"][0]["seen_by"] = "nobody"
        dataset = make_shard_of(tmp_path / "in", *documents)
        mended(tmp_path / "in", tmp_path / "out")
        assert (tmp_path / "out" / "000000000.tar").read_bytes() == dataset.path().read_bytes()

    def test_roles_that_fit_no_sentences_give_way(self, tmp_path: Path) -> None:
        document = make_document(0) | {"roles": ["human"]}
        make_shard_of(tmp_path / "in", document)
        result = mended(tmp_path / "in", tmp_path / "out")
        assert result.tally.notes == {"facts-corrected": 1}

    def test_what_is_lost_beside_them_is_restored(self, tmp_path: Path) -> None:
        dataset = make_sound(tmp_path / "in")
        for ending in (".json", ".samples.parquet", ".rejects.jsonl"):
            dataset.path(0, ending).unlink()
        (tmp_path / "in" / "manifest.json").write_text("{")
        mended(tmp_path / "in", tmp_path / "out")
        assert (tmp_path / "out" / "000000000.tar").read_bytes() == dataset.path(0).read_bytes()
        manifest = manifest_of(tmp_path / "out")
        assert (manifest["kind"], len(manifest["shards"])) == ("mmc4", 2)

    def test_openflamingos_shards_become_ours(self, tmp_path: Path) -> None:
        documents = [foreign(make_document(number)) for number in range(3)]
        members = [(f"{n}x.json", encode(document)) for n, document in enumerate(documents)]
        (tmp_path / "5.tar").write_bytes(make_tar(members))
        mended(tmp_path / "5.tar", tmp_path / "out")
        found = documents_of(tmp_path / "out")
        assert list(found) == ["000000000000", "000000000001", "000000000002"]
        for document, before in zip(found.values(), documents, strict=True):
            assert document["text_list"] == before["text_list"]
            assert document["similarity_matrix"] == before["similarity_matrix"]
            assert document["format_version"] == "1"
        assert rejects(tmp_path / "out") == []

    def test_img2datasets_pairs_become_ours(self, tmp_path: Path) -> None:
        make_pairs(tmp_path / "in")
        result = mended(tmp_path / "in", tmp_path / "out")
        assert manifest_of(tmp_path / "out")["layout"] == "pairs"
        assert (result.tally.documents, result.tally.notes) == (3, {})


def image(document: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return document["image_info"][number]


def put(document: dict[str, Any], data: bytes, **more: Any) -> None:
    image(document).update(image_base64=base64.b64encode(data).decode(), **more)


def cut(document: dict[str, Any]) -> None:
    data = make_image(7, width=128, height=128)
    data = data[: len(data) * 2 // 3] + b"\xff\xd9"
    put(document, data, sha256=sha256(data), width=128, height=128, format="jpeg")


def worse(document: dict[str, Any]) -> None:
    document["similarity_matrix"] = [[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]]
    for row, (listed, index) in enumerate(zip(document["image_info"], (1, 2), strict=True)):
        listed["matched_text_index"] = index
        listed["matched_sim"] = document["similarity_matrix"][row][index]


def swap(document: dict[str, Any]) -> None:
    document["image_info"].reverse()
    document["similarity_matrix"].reverse()


def given_out_of_range(document: dict[str, Any]) -> None:
    document["alignment"] = "given"
    image(document)["matched_text_index"] = 7


def palette(document: dict[str, Any]) -> None:
    import io

    from PIL import Image

    sink = io.BytesIO()
    Image.new("P", (9, 8), 3).save(sink, "GIF")
    put(document, sink.getvalue(), sha256=sha256(sink.getvalue()))


Change = Callable[[dict[str, Any]], object]

#: damage -> (change to a document of two images and three sentences, notes, images dropped)
MENDED: dict[str, tuple[Change, dict[str, int], dict[str, int]]] = {
    "b'...' around base64": (
        lambda d: image(d).update(image_base64=str(image(d)["image_base64"].encode())),
        {"base64-mended": 1},
        {},
    ),
    "a data: URI": (
        lambda d: image(d).update(image_base64="data:image/png;base64," + image(d)["image_base64"]),
        {"base64-mended": 1},
        {},
    ),
    "line breaks in base64": (
        lambda d: image(d).update(
            image_base64="\n".join([image(d)["image_base64"][:76], image(d)["image_base64"][76:]])
        ),
        {"base64-mended": 1},
        {},
    ),
    "no base64": (lambda d: image(d).update(image_base64="*"), {}, {"unreadable": 1}),
    "no bytes": (lambda d: image(d).pop("image_base64"), {}, {"missing": 1}),
    "other bytes": (lambda d: put(d, make_image(99)), {}, {"hash-mismatch": 1}),
    "a picture cut and closed again": (cut, {}, {"truncated": 1}),
    "not a picture": (
        lambda d: put(d, b"<html>", sha256=sha256(b"<html>")),
        {},
        {"not-an-image": 1},
    ),
    "a GIF": (palette, {}, {}),
    "a wrong width": (lambda d: image(d).update(width=25), {"facts-corrected": 1}, {}),
    "a wrong format": (lambda d: image(d).update(format="png"), {"facts-corrected": 1}, {}),
    "a name that is a number": (
        lambda d: image(d).update(image_name=5),
        {"facts-corrected": 1},
        {},
    ),
    "a short row": (lambda d: d["similarity_matrix"][1].pop(), {}, {"bad-row": 1}),
    "a row of strings": (
        lambda d: d["similarity_matrix"].__setitem__(0, ["a", "b", "c"]),
        {},
        {"bad-row": 1},
    ),
    "a row times 100": (
        lambda d: d["similarity_matrix"].__setitem__(0, [31.0, 2.0, 1.0]),
        {},
        {"bad-row": 1},
    ),
    "an assignment that is not optimal": (worse, {"realigned": 1}, {}),
    "an index out of range": (
        lambda d: image(d).update(matched_text_index=3),
        {"realigned": 1},
        {},
    ),
    "an index that is a string": (
        lambda d: image(d).update(matched_text_index="1"),
        {"realigned": 1},
        {},
    ),
    "a given index out of range": (given_out_of_range, {}, {"no-sentence": 1}),
    "another matched_sim": (
        lambda d: image(d).update(matched_sim=0.5),
        {"similarity-corrected": 1},
        {},
    ),
    "images in another order": (swap, {"reordered": 1}, {}),
    "no alignment named": (lambda d: d.pop("alignment"), {}, {}),
    "another version": (lambda d: d.update(format_version="2"), {}, {}),
}

#: damage -> (change, or the member's bytes; why the document drops)
DROPPED: dict[str, tuple[Change | bytes, str]] = {
    "a row too few": (lambda d: d["similarity_matrix"].pop(), "bad-matrix"),
    "no matrix": (lambda d: d.pop("similarity_matrix"), "no-matrix"),
    "no sentences": (lambda d: d.update(text_list=[]), "no-text"),
    "sentences that are none": (b'{"text_list":"a","image_info":[]}', "bad-schema"),
    "no images listed": (lambda d: d.pop("image_info"), "bad-schema"),
    "every image gone": (
        lambda d: [image(d, n).pop("image_base64") for n in (0, 1)],
        "no-images-left",
    ),
    "cut JSON": (b'{"text_list": ["a"', "bad-json"),
    "a key twice": (b'{"text_list":["a"],"text_list":["b"],"image_info":[]}', "duplicate-keys"),
    "half a surrogate pair": (b'{"text_list":["\\ud83d"],"image_info":[]}', "lone-surrogate"),
    "too deep": (b'{"text_list":["a"],"image_info":[],"x":' + b"[" * 100_000, "too-deep"),
    "an array": (b"[]", "not-an-object"),
    "not UTF-8": (b'{"text_list":["a"],"image_info":[],"x":"\xff"}', "not-utf8"),
    "NaN": (
        b'{"text_list":["a"],"image_info":[{}],"similarity_matrix":[[NaN]]}',
        "non-finite",
    ),
    "nothing": (b"", "bad-json"),
}


class TestDocuments:
    @pytest.mark.parametrize("damage", MENDED)
    def test_is_mended(self, tmp_path: Path, damage: str) -> None:
        change, notes, dropped = MENDED[damage]
        document = make_document(1, images=2, sentences=3)
        change(document)
        make_shard_of(tmp_path / "in", make_document(0), document, make_document(2))
        result = mended(tmp_path / "in", tmp_path / "out")
        assert result.tally.documents == 3
        assert (result.tally.notes, result.tally.images_dropped) == (notes, dropped)
        lines = rejects(tmp_path / "out")
        assert {line["key"] for line in lines} <= {"000000000001"}
        assert len(lines) == sum(notes.values()) + sum(dropped.values())
        assert all(line["detail"] for line in lines)

    @pytest.mark.parametrize("damage", DROPPED)
    def test_is_dropped_by_reason(self, tmp_path: Path, damage: str) -> None:
        change, reason = DROPPED[damage]
        raw: bytes | dict[str, Any] = change if isinstance(change, bytes) else make_document(1)
        if not isinstance(change, bytes) and isinstance(raw, dict):
            change(raw)
        make_shard_of(tmp_path / "in", make_document(0), raw, make_document(2))
        result = mended(tmp_path / "in", tmp_path / "out")
        assert result.tally.documents_dropped == {reason: 1}
        assert list(documents_of(tmp_path / "out")) == ["000000000000", "000000000002"]

    def test_raw_line_breaks_in_base64(self, tmp_path: Path) -> None:
        document = foreign(make_document(1))
        text = image(document)["image_base64"]
        raw = encode(document).replace(
            text.encode(), text.encode()[:76] + b"\r\n" + text.encode()[76:]
        )
        (tmp_path / "0.tar").write_bytes(make_tar([("a.json", raw)]))
        result = mended(tmp_path / "0.tar", tmp_path / "out")
        assert result.tally.notes == {"base64-mended": 1, "json-mended": 1}
        (found,) = documents_of(tmp_path / "out").values()
        assert image(found)["image_base64"] == text

    def test_given_alignments_stay_given(self, tmp_path: Path) -> None:
        document = make_document(1)
        worse(document)
        document["alignment"] = "given"
        make_shard_of(tmp_path / "in", document)
        assert mended(tmp_path / "in", tmp_path / "out").tally.notes == {}
        (found,) = documents_of(tmp_path / "out").values()
        assert [i["matched_text_index"] for i in found["image_info"]] == [1, 2]

    def test_a_document_without_images_was_meant_to_be(self, tmp_path: Path) -> None:
        document = make_document(1) | {"image_info": [], "similarity_matrix": []}
        make_shard_of(tmp_path / "in", document)
        assert mended(tmp_path / "in", tmp_path / "out").tally.documents == 1

    def test_sentences_that_changed_are_named(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path / "in", shards=1)
        raw = dataset.path(0).read_bytes()
        flip(dataset.path(0), raw.index(b"Sentence 0 of page 1"))
        result = mended(tmp_path / "in", tmp_path / "out")
        assert result.tally.notes == {"text-differs": 1}


class TestTars:
    #: name: layout, records, documents, images, why documents and images drop, notes
    EXPECTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "good_openflamingo": ("interleaved", 3, 3, 6, {}, {}, {}),
        "truncated": ("interleaved", 2, 1, 2, {"lost": 1}, {}, {}),
        "bad_base64": ("interleaved", 3, 2, 4, {"no-images-left": 1}, {"unreadable": 2}, {}),
        "base64_of_html": ("interleaved", 1, 0, 0, {"no-images-left": 1}, {"not-an-image": 2}, {}),
        "bad_padding": ("interleaved", 1, 0, 0, {"no-images-left": 1}, {"unreadable": 2}, {}),
        "bad_json_member": ("interleaved", 3, 2, 4, {"bad-json": 1}, {}, {}),
        "same_key_twice": ("interleaved", 2, 2, 4, {}, {}, {"renamed": 1}),
        "members_not_grouped": ("pairs", 2, 2, 2, {}, {}, {"regrouped": 2}),
        "missing_txt": (
            *("pairs", 3, 1, 1),
            *({"no-images-listed": 1, "no-text": 1}, {"document-dropped": 1}, {}),
        ),
        "traversal_member": ("interleaved", 1, 1, 2, {}, {}, {"renamed": 1}),
        "symlink_member": (
            *("pairs", 2, 0, 0),
            *({"no-images-listed": 1, "not-a-sample": 1}, {}, {}),
        ),
        "directories_and_dots": ("interleaved", 3, 2, 4, {"not-a-sample": 1}, {}, {"renamed": 2}),
        "no_extension": ("interleaved", 2, 1, 2, {"not-a-sample": 1}, {}, {}),
        "empty": ("interleaved", 0, 0, 0, {}, {}, {}),
    }
    #: Nothing of these can be saved: (what the message says).
    REFUSED: ClassVar[dict[str, str]] = {
        "zero_bytes": "expected a tar of at least 1024 bytes, got 0 bytes",
        "not_a_tar": "expected a tar header in the first 512 bytes",
    }

    @staticmethod
    def hostile(name: str, folder: Path) -> Path:
        path = folder / f"{name}.tar"
        path.write_bytes(gzip.decompress((HOSTILE / f"{name}.tar.gz").read_bytes()))
        return path

    @pytest.mark.parametrize("name", EXPECTED)
    def test_is_mended_or_tells_what_is_lost(self, tmp_path: Path, name: str) -> None:
        layout, *expected = self.EXPECTED[name]
        result = mended(self.hostile(name, tmp_path), tmp_path / "out")
        tally = result.tally
        assert result.plan.options["layout"] == layout
        assert [
            *(tally.records, tally.documents, tally.images),
            *(tally.documents_dropped, tally.images_dropped, tally.notes),
        ] == expected
        assert {path.name for path in tmp_path.iterdir()} == {f"{name}.tar", "out"}

    @pytest.mark.parametrize("name", REFUSED)
    def test_what_is_no_tar_is_refused_by_name(self, tmp_path: Path, name: str) -> None:
        path = self.hostile(name, tmp_path)
        with pytest.raises(BadInputError, match=self.REFUSED[name]) as error:
            mend(path, tmp_path / "out")
        assert error.value.exit_code == 2
        assert not (tmp_path / "out").exists()
        self.hostile("good_openflamingo", tmp_path)
        result = mended(tmp_path / "*.tar", tmp_path / "out", skip_bad_inputs=True)
        assert [entry.file for entry in result.plan.excluded] == [path.name]

    def test_every_asset_is_in_a_table(self) -> None:
        names = {path.name.removesuffix(".tar.gz") for path in HOSTILE.glob("*.gz")}
        assert names == self.EXPECTED.keys() | self.REFUSED.keys()

    @pytest.mark.parametrize("with_table", [False, True])
    def test_samples_behind_a_damaged_header_are_saved(
        self, tmp_path: Path, with_table: bool
    ) -> None:
        dataset = make_sound(tmp_path / "in", shards=1)
        whole = dataset.path(0).read_bytes()
        offset = dataset.read_samples()[1]["offset"]
        damaged = bytearray(whole)
        damaged[offset - 400 : offset] = b"\xff" * 400
        dataset.path(0).write_bytes(damaged)
        if not with_table:
            dataset.path(0, ".samples.parquet").unlink()
        result = mended(tmp_path / "in", tmp_path / "out")
        assert result.tally.notes["header-mended"] == 1
        assert (tmp_path / "out" / "000000000.tar").read_bytes() == whole

    @pytest.mark.parametrize("with_table", [False, True])
    def test_parts_of_two_documents_never_come_together(
        self, tmp_path: Path, with_table: bool
    ) -> None:
        """Cut out from a picture of one to a picture of the next, the rest is valid JSON."""
        dataset = make_sound(tmp_path / "in", shards=1)
        whole = dataset.path(0).read_bytes()
        first, second = (row["offset"] for row in dataset.read_samples()[:2])
        ends = [whole.index(b'"image_base64":"', start) + 60 for start in (first, second)]
        dataset.path(0).write_bytes(whole[: ends[0]] + whole[ends[1] :])
        if not with_table:
            dataset.path(0, ".samples.parquet").unlink()
        mended(tmp_path / "in", tmp_path / "out")
        pictures = {
            str(document["text_list"]): {info["sha256"] for info in document["image_info"]}
            for document in dataset.documents[0]
            if isinstance(document, dict)
        }
        for document in documents_of(tmp_path / "out").values():
            known = pictures[str(document["text_list"])]
            assert {info["sha256"] for info in document["image_info"]} <= known

    def test_a_shard_that_is_cut_names_every_sample_that_it_lost(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path / "in")
        whole = dataset.path(0).read_bytes()
        dataset.path(0).write_bytes(whole[: dataset.read_samples()[1]["offset"] + 700])
        result = mended(tmp_path / "in", tmp_path / "out")
        assert result.tally.documents_dropped == {"lost": 2}
        assert [line["key"] for line in rejects(tmp_path / "out")] == [
            "000000000001",
            "000000000002",
        ]
        assert len(documents_of(tmp_path / "out")) == 4

    def test_keys_that_are_in_two_shards_are_numbered_anew(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path / "in")
        shutil.copy(dataset.path(0), dataset.path(1))
        mended(tmp_path / "in", tmp_path / "out")
        assert list(documents_of(tmp_path / "out")) == [f"{n:012d}" for n in range(6)]
        assert manifest_of(tmp_path / "out")["options"]["keep_keys"] is False

    def test_layouts_do_not_mix(self, tmp_path: Path) -> None:
        make_pairs(tmp_path / "in")
        make_dataset(tmp_path / "in", shards=1)
        with pytest.raises(UserError, match="repair them apart"):
            mend(tmp_path / "in", tmp_path / "out")


class TestPairs:
    @pytest.mark.parametrize("damaged", ["a.jpg", "a.txt"])
    def test_of_a_pair_that_is_dropped_the_lost_bytes_are_named(
        self, tmp_path: Path, damaged: str
    ) -> None:
        data = bytearray(make_tar([("a.jpg", make_image(1)), ("a.txt", b"A barn."),
                                   ("b.jpg", make_image(2)), ("b.txt", b"A mill.")]))  # fmt: skip
        start = data.index(damaged.encode())
        data[start + 124 : start + 136] = b"?" * 12  # its size
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "0.tar").write_bytes(data)
        mend(tmp_path / "in", tmp_path / "out")
        (dropped,) = [
            one for one in rejects(tmp_path / "out") if one["action"] == "dropped-document"
        ]
        assert f"{damaged}: bytes {start} to " in dropped["detail"]

    @staticmethod
    def shard(folder: Path, *samples: dict[str, bytes]) -> Path:
        folder.mkdir()
        members = [
            (f"{number:05d}.{kind}", data)
            for number, sample in enumerate(samples)
            for kind, data in sample.items()
        ]
        (folder / "00000.tar").write_bytes(make_tar(members))
        return folder

    def test_a_text_comes_back_from_the_json(self, tmp_path: Path) -> None:
        metadata = encode({"caption": "A cat, ü.", "url": "https://example.org/a"})
        lacking = {"jpg": make_image(1), "json": metadata}
        broken = {"jpg": make_image(2), "txt": b"\xff", "json": metadata}
        without = {"jpg": make_image(3), "txt": b"\xff"}
        shards = self.shard(tmp_path / "in", lacking, broken, without)
        result = mended(shards, tmp_path / "out")
        assert result.tally.notes == {"caption-restored": 2}
        assert result.tally.documents_dropped == {"not-utf8": 1}

    def test_pictures_and_json_that_cannot_be_read(self, tmp_path: Path) -> None:
        cut_picture = {"jpg": make_image(1)[:200], "txt": b"A"}
        broken_json = {"jpg": make_image(2), "txt": b"B", "json": b"{", "cls": b"1"}
        result = mended(self.shard(tmp_path / "in", cut_picture, broken_json), tmp_path / "out")
        assert result.tally.images_dropped == {"truncated": 1}
        assert result.tally.documents_dropped == {"no-images-left": 1}
        assert result.tally.notes == {"member-lost": 2}

    def test_what_ours_wrote_comes_out_byte_for_byte(self, tmp_path: Path) -> None:
        make_pairs(tmp_path / "in")
        mended(tmp_path / "in", tmp_path / "once")
        mended(tmp_path / "once", tmp_path / "twice")
        name = "000000000.tar"
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()

    def test_a_changed_picture_of_ours_is_not_kept(self, tmp_path: Path) -> None:
        make_pairs(tmp_path / "in")
        mended(tmp_path / "in", tmp_path / "once")
        tar = tmp_path / "once" / "000000000.tar"
        flip(tar, 512 + 30)  # in the JFIF header: it decodes all the same
        result = mended(tmp_path / "once", tmp_path / "twice")
        assert result.tally.images_dropped == {"hash-mismatch": 1}


class TestRun:
    def test_never_in_place(self, tmp_path: Path) -> None:
        make_dataset(tmp_path)
        with pytest.raises(UserError):
            mend(tmp_path, tmp_path)
        with pytest.raises(UserError, match="choose another folder"):
            mend(tmp_path, tmp_path, overwrite=True)

    def test_again_it_does_nothing_and_after_a_loss_only_that(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path / "in", shards=3)
        flip(dataset.path(1), 100)
        first = mended(tmp_path / "in", tmp_path / "out")
        assert (first.shards_written, first.shards_kept) == (3, 0)
        again = mended(tmp_path / "in", tmp_path / "out")
        assert (again.shards_written, again.shards_kept) == (0, 3)
        before = (tmp_path / "out" / "manifest.json").read_bytes()
        (tmp_path / "out" / "000000001.json").unlink()
        third = mended(tmp_path / "in", tmp_path / "out")
        assert (third.shards_written, third.shards_kept) == (1, 2)
        assert (tmp_path / "out" / "manifest.json").read_bytes() == before

    def test_a_shard_that_changes_under_the_run_fails_its_unit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = make_dataset(tmp_path / "in")
        from pipelines.repair import run as module

        whole = module.run_plan

        def change_first(*args: Any, **more: Any) -> ConversionResult:
            dataset.path(1).write_bytes(dataset.path(0).read_bytes() + bytes(512))
            return whole(*args, **more)

        monkeypatch.setattr(module, "run_plan", change_first)
        result = mend(tmp_path / "in", tmp_path / "out")
        assert result.exit_code == 1
        assert "has changed since the run was planned" in result.failures[0][1].error

    @pytest.mark.ray
    @pytest.mark.slow
    @pytest.mark.matrix
    def test_workers_make_the_same_bytes(self, tmp_path: Path) -> None:
        dataset: Dataset = make_dataset(tmp_path / "in", shards=3)
        flip(dataset.path(1), 100)
        mended(tmp_path / "in", tmp_path / "here")
        mended(tmp_path / "in", tmp_path / "there", workers=2)
        for path in sorted((tmp_path / "here").iterdir()):
            if path.name != "plan.json" and path.is_file():
                assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


class TestWhatIsLostWhole:
    """Exit 1, and which shard; also where others were saved."""

    def test_every_document(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "0.tar").write_bytes(make_tar([("a.json", b"{"), ("b.json", b"[]")]))
        result = mend(tmp_path / "in", tmp_path / "out")
        assert (result.exit_code, result.lost) == (1, ["0.tar"])
        assert result.tally.documents_dropped == {"bad-json": 1, "not-an-object": 1}
        again = mend(tmp_path / "in", tmp_path / "out")
        assert (again.exit_code, again.shards_kept) == (1, 1)

    def test_every_document_of_one_shard(self, tmp_path: Path) -> None:
        make_sound(tmp_path / "in")
        (tmp_path / "in" / "000000002.tar").write_bytes(make_tar([("a.json", b"{")]))
        result = mend(tmp_path / "in", tmp_path / "out")
        assert (result.exit_code, result.lost) == (1, ["000000002.tar"])
        assert result.tally.documents > 0

    def test_a_shard_without_samples_has_lost_nothing(self, tmp_path: Path) -> None:
        make_sound(tmp_path / "in", shards=1)
        (tmp_path / "in" / "000000001.tar").write_bytes(make_tar([]))
        assert mend(tmp_path / "in", tmp_path / "out").exit_code == 0


def test_a_tar_without_its_end_is_ended_and_noted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    whole = make_tar([(f"{n}.json", encode(make_document(n))) for n in range(2)], fill=False)
    (tmp_path / "in" / "0.tar").write_bytes(whole[:-1024])
    result = mend(tmp_path / "in", tmp_path / "out")
    assert (result.exit_code, result.tally.documents) == (0, 2)
    assert result.tally.notes == {"no-end-mark": 1}
    (line,) = rejects(tmp_path / "out")
    assert (line["record"], line["action"]) == (1, "kept")
