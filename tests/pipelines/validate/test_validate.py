"""`validate` over whole shards: each kind of damage is made in a real shard and must be found.

Run: pytest tests/pipelines/validate/test_validate.py
"""

import base64
import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from mmdata.errors import UserError
from mmdata.validation.render import render, verdict
from mmdata.validation.report import ValidationReport
from mmdata.validation.rules import RULES
from pipelines.validate.options import Level, Validate
from pipelines.validate.run import validate
from tests.corpus import environment
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


def check(*shards: Path, level: Level = "full", **options: Any) -> ValidationReport:
    return validate(Validate(shards=tuple(map(str, shards)), level=level, workers=0, **options))


def codes(report: ValidationReport) -> list[str]:
    return [count.code for count in report.counts]


class TestClean:
    @pytest.mark.parametrize("level", ["structure", "content", "full"])
    def test_a_conversion_of_ours(self, tmp_path: Path, level: Level) -> None:
        make_dataset(tmp_path)
        report = check(tmp_path, level=level)
        assert report.findings == []
        assert report.exit_code == 0
        assert (report.shards, report.samples, report.images) == (2, 6, 18)

    def test_by_folder_glob_and_range(self, tmp_path: Path) -> None:
        make_dataset(tmp_path)
        for spec in ("", "*.tar", "{000000000..000000001}.tar"):
            assert check(tmp_path / spec).shards == 2
        assert check(tmp_path, tmp_path / "*.tar").shards == 2

    def test_one_shard_picked_out_of_a_folder(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        assert check(dataset.path(1)).findings == []

    def test_openflamingos_shards(self, tmp_path: Path) -> None:
        members = [(f"{n}.json", json.dumps(foreign(make_document(n))).encode()) for n in range(3)]
        (tmp_path / "000000000.tar").write_bytes(make_tar(members))
        report = check(tmp_path)
        assert report.findings == []
        assert report.images == 6

    def test_img2datasets_shards(self, tmp_path: Path) -> None:
        make_pairs(tmp_path)
        (tmp_path / "00000_stats.json").write_text("{}")
        report = check(tmp_path)
        assert report.findings == []
        assert (report.samples, report.images) == (3, 3)

    def test_more_images_than_sentences(self, tmp_path: Path) -> None:
        make_shard_of(tmp_path, make_document(1, images=5, sentences=2), make_document(2, images=1))
        assert check(tmp_path).findings == []


def edit_document(
    change: Callable[[dict[str, Any]], object],
) -> Callable[[Path], Dataset]:
    """A shard whose second document was changed, everything around it agreeing."""

    def make(folder: Path) -> Dataset:
        document = make_document(1, images=2, sentences=3)
        change(document)
        return make_shard_of(folder, make_document(0), document, make_document(2))

    return make


def image(document: dict[str, Any]) -> dict[str, Any]:
    return document["image_info"][0]


def cut_and_closed(document: dict[str, Any]) -> None:
    """A JPEG cut in its scan and closed with an end marker: Pillow sees nothing wrong."""
    data = make_image(7, width=128, height=128)
    data = data[: len(data) * 2 // 3] + b"\xff\xd9"
    image(document).update(
        image_base64=base64.b64encode(data).decode(),
        sha256=sha256(data),
        width=128,
        height=128,
        format="jpeg",
    )


def worse_assignment(document: dict[str, Any]) -> None:
    document["similarity_matrix"] = [[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]]
    for row, (listed, index) in enumerate(zip(document["image_info"], (1, 2), strict=True)):
        listed["matched_text_index"] = index
        listed["matched_sim"] = document["similarity_matrix"][row][index]


def as_bytes_literal(document: dict[str, Any]) -> None:
    image(document)["image_base64"] = str(image(document)["image_base64"].encode())


def other_bytes(document: dict[str, Any]) -> None:
    image(document)["image_base64"] = base64.b64encode(make_image(99)).decode()


def swap_images(document: dict[str, Any]) -> None:
    document["image_info"].reverse()
    document["similarity_matrix"].reverse()


DAMAGED_DOCUMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a changed image": (other_bytes, "IMG001"),
    "a JPEG cut and closed with an end marker": (cut_and_closed, "IMG002"),
    "another width": (lambda d: image(d).update(width=25), "IMG003"),
    "another format": (lambda d: image(d).update(format="png"), "IMG003"),
    "b'...' around base64": (as_bytes_literal, "B64001"),
    "base64 without padding": (
        lambda d: image(d).update(image_base64=image(d)["image_base64"].rstrip("=")[:-1]),
        "B64002",
    ),
    "a line break in base64": (
        lambda d: image(d).update(image_base64="\n" + image(d)["image_base64"]),
        "B64002",
    ),
    "a row too few": (lambda d: d["similarity_matrix"].pop(), "SIM001"),
    "a short row": (lambda d: d["similarity_matrix"][1].pop(), "SIM002"),
    "not a cosine": (lambda d: d["similarity_matrix"][0].__setitem__(0, -31.0), "SIM004"),
    "an assignment that is not optimal": (worse_assignment, "ALN003"),
    "an index out of range": (lambda d: image(d).update(matched_text_index=3), "ALN001"),
    "another matched_sim": (lambda d: image(d).update(matched_sim=0.5), "ALN002"),
    "images in another order": (swap_images, "DOC004"),
    "an index that is a string": (lambda d: image(d).update(matched_text_index="1"), "DOC001"),
    "a missing field": (lambda d: d.pop("alignment"), "DOC001"),
    "no sentences": (lambda d: d.update(text_list=[]), "DOC001"),
    "another version": (lambda d: d.update(format_version="2"), "DOC003"),
    "no version": (lambda d: d.pop("format_version"), "DOC001"),
}


class TestDocuments:
    @pytest.mark.parametrize("damage", DAMAGED_DOCUMENTS)
    def test_is_found(self, tmp_path: Path, damage: str) -> None:
        change, code = DAMAGED_DOCUMENTS[damage]
        edit_document(change)(tmp_path)
        report = check(tmp_path)
        assert code in codes(report)
        assert {finding.key for finding in report.findings} == {"000000000001"}

    @pytest.mark.parametrize(
        ("raw", "code"),
        [
            (b'{"text_list": ["a"', "JSON002"),
            (b'{"text_list":["a"],"text_list":["b"],"image_info":[]}', "JSON003"),
            (b'{"text_list":["\\ud83d"],"image_info":[]}', "JSON004"),
            (b'{"text_list":["a"],"image_info":[],"x":' + b"[" * 100_000, "JSON005"),
            (b"[]", "JSON006"),
            (b'{"text_list":["a"],"image_info":[],"x":"\xff"}', "JSON001"),
            (b'{"text_list":["a"],"image_info":[],"similarity_matrix":[[NaN]]}', "JSON002"),
            (b"", "JSON002"),
        ],
    )
    def test_json_that_is_none(self, tmp_path: Path, raw: bytes, code: str) -> None:
        make_shard_of(tmp_path, make_document(0), raw)
        assert codes(check(tmp_path)) == [code]

    def test_levels_look_as_far_as_they_say(self, tmp_path: Path) -> None:
        edit_document(cut_and_closed)(tmp_path)
        assert codes(check(tmp_path, level="content")) == []
        edit_document(other_bytes)(tmp_path)
        assert codes(check(tmp_path, level="structure")) == []
        assert "IMG001" in codes(check(tmp_path, level="content"))

    def test_given_alignments_are_not_judged_by_their_total(self, tmp_path: Path) -> None:
        def given(document: dict[str, Any]) -> None:
            worse_assignment(document)
            document["alignment"] = "given"

        edit_document(given)(tmp_path)
        assert check(tmp_path).findings == []


class TestImageBytesWithoutARecordedHash:
    def test_strict_decode_sees_a_cut(self, tmp_path: Path) -> None:
        document = make_document(1)
        cut_and_closed(document)
        raw = json.dumps(foreign(document)).encode()
        (tmp_path / "0.tar").write_bytes(make_tar([("a.json", raw)]))
        report = check(tmp_path)
        assert codes(report) == ["IMG002"]
        assert report.findings[0].path == "$.image_info[0].image_base64"

    def test_images_without_bytes_are_a_warning(self, tmp_path: Path) -> None:
        document = foreign(make_document(1))
        del document["image_info"][0]["image_base64"]
        (tmp_path / "0.tar").write_bytes(make_tar([("a.json", json.dumps(document).encode())]))
        report = check(tmp_path)
        assert (codes(report), report.exit_code) == (["DOC006"], 0)


class TestTar:
    """Damage to the tar itself; the sidecar tells as well, so the tar is looked at alone."""

    @pytest.fixture
    def shard(self, tmp_path: Path) -> Path:
        dataset = make_dataset(tmp_path / "whole", shards=1)
        shutil.copy(dataset.path(), tmp_path / "alone.tar")
        return tmp_path / "alone.tar"

    def test_a_changed_header(self, shard: Path) -> None:
        flip(shard, 100)
        report = check(shard)
        assert codes(report) == ["TAR003", "TAR008"]
        assert report.samples == 3
        assert report.findings[1].got.startswith("3 samples (3 members) from byte 0 on")

    def test_a_cut_at_a_member_boundary(self, shard: Path) -> None:
        shard.write_bytes(shard.read_bytes()[:-1024])
        assert codes(check(shard, level="structure")) == ["TAR006"]

    def test_a_cut_inside_a_member(self, shard: Path) -> None:
        shard.write_bytes(shard.read_bytes()[:-2000])
        report = check(shard)
        assert (codes(report), report.samples) == (["TAR004"], 2)

    def test_bytes_behind_the_end(self, shard: Path) -> None:
        shard.write_bytes(shard.read_bytes() + b"more")
        assert codes(check(shard)) == ["TAR007"]

    def test_padding(self, shard: Path) -> None:
        data = shard.read_bytes()
        flip(shard, len(data) - 1025)
        assert codes(check(shard)) == ["TAR005"]

    def test_a_member_name_twice(self, tmp_path: Path) -> None:
        raw = json.dumps(foreign(make_document(1))).encode()
        (tmp_path / "0.tar").write_bytes(make_tar([("a.json", raw), ("a.json", raw)]))
        assert codes(check(tmp_path)) == ["KEY002"]


class TestBeside:
    @pytest.mark.parametrize("level", ["content", "full"])
    def test_a_changed_byte_anywhere_in_the_tar(self, tmp_path: Path, level: Level) -> None:
        dataset = make_dataset(tmp_path)
        flip(dataset.path(1), 700)
        report = check(tmp_path, level=level)
        assert {"SIDE005", "SIDE009", "MAN004"} <= set(codes(report))
        located = next(f for f in report.findings if f.code == "SIDE009")
        assert located.key == "000000000003"

    def test_a_sidecar_that_does_not_belong(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        shutil.copy(dataset.path(0, ".json"), dataset.path(1, ".json"))
        report = check(tmp_path)
        found = [f for f in report.findings if f.code == "SIDE003"]
        assert str(found[0]) == (
            "SIDE003 expected '000000001.tar', got '000000000.tar' - at `$.shard` "
            f"({dataset.path(1)})"
        )

    def test_a_sidecar_with_the_right_name_and_another_shards_numbers(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        text = dataset.path(0, ".json").read_text().replace("000000000.tar", "000000001.tar")
        dataset.path(1, ".json").write_text(text)
        found = [f for f in check(tmp_path).findings if f.code == "SIDE003"]
        assert [f.got for f in found] == ["size and sha256 of 000000000.tar"]

    def test_no_sidecar(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        dataset.path(1, ".json").unlink()
        assert codes(check(tmp_path)) == ["SIDE001"]

    def test_an_unfinished_conversion_is_a_warning(self, tmp_path: Path) -> None:
        make_dataset(tmp_path)
        (tmp_path / "manifest.json").unlink()
        report = check(tmp_path)
        assert (codes(report), report.exit_code) == (["MAN007"], 0)

    def test_a_shard_of_the_manifest_that_is_missing(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        dataset.path(1).unlink()
        assert codes(check(tmp_path)) == ["MAN002"]

    def test_a_tar_that_the_manifest_does_not_list(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        other = make_dataset(tmp_path / "other", shards=3)
        for ending in (".tar", ".json", ".samples.parquet", ".rejects.jsonl"):
            shutil.copy(other.path(2, ending), dataset.path(2, ending))
        assert codes(check(tmp_path)) == ["MAN003"]

    def test_a_key_in_two_shards(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        for ending in (".tar", ".samples.parquet"):
            shutil.copy(dataset.path(0, ending), dataset.path(1, ending))
        dataset.sign()
        report = check(tmp_path)
        assert codes(report) == ["KEY003"]
        assert report.findings[0].got == "in 000000000.tar and in 000000001.tar"
        assert report.counts[0].findings == 3


class TestHostileTars:
    """Every one gets its finding; none makes it raise, and nothing is written anywhere."""

    EXPECTED: ClassVar[dict[str, tuple[list[str], int, int]]] = {
        # name: rules, exit code, samples
        "good_openflamingo": ([], 0, 3),
        "truncated": (["TAR004"], 1, 1),
        "bad_base64": (["B64002"], 1, 3),
        "base64_of_html": (["IMG002"], 1, 1),
        "bad_padding": (["B64002"], 1, 1),
        "bad_json_member": (["JSON002"], 1, 3),
        "same_key_twice": (["KEY002"], 1, 1),
        "members_not_grouped": (["PAIR001"], 1, 2),
        "missing_txt": (["PAIR002", "PAIR003"], 1, 3),
        "traversal_member": (["KEY004"], 1, 1),
        "symlink_member": (["PAIR002", "TAR009"], 1, 1),
        "directories_and_dots": (["KEY005", "KEY007", "TAR009"], 0, 1),
        "no_extension": (["KEY005"], 0, 1),
        "empty": ([], 0, 0),
        "zero_bytes": (["TAR002"], 1, 0),
        "not_a_tar": (["TAR001"], 1, 0),
    }

    @pytest.mark.parametrize("name", EXPECTED)
    def test_is_found(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / f"{name}.tar"
        path.write_bytes(gzip.decompress((HOSTILE / f"{name}.tar.gz").read_bytes()))
        report = check(path)
        assert (codes(report), report.exit_code, report.samples) == self.EXPECTED[name]
        assert list(tmp_path.iterdir()) == [path]

    def test_every_asset_is_expected_to_give_something(self) -> None:
        names = {path.name.removesuffix(".tar.gz") for path in HOSTILE.glob("*.gz")}
        assert names == set(self.EXPECTED)


class TestImagesOfShardsByOthers:
    """At level structure nothing tells how many documents have: that is said, and no 0."""

    def test_pairs_are_counted_by_name(self, tmp_path: Path) -> None:
        report = check(make_pairs(tmp_path), level="structure")
        assert (report.samples, report.images, report.uncounted) == (3, 3, 0)

    def test_documents_are_not(self, tmp_path: Path) -> None:
        documents = [(f"{n}.json", encode(foreign(make_document(n)))) for n in range(3)]
        (tmp_path / "0.tar").write_bytes(make_tar(documents))
        report = check(tmp_path, level="structure")
        assert (report.samples, report.images, report.uncounted) == (3, 0, 1)
        assert "3 samples, images not counted (--level content counts them)" in verdict(report)
        report = check(tmp_path, level="content")
        assert (report.images, report.uncounted) == (6, 0)


class TestReport:
    def test_what_cannot_be_found_cannot_be_checked(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            check(tmp_path / "a.tar", tmp_path / "b.tar")
        assert error.value.exit_code == 2
        assert str(error.value) == (
            f"{tmp_path / 'a.tar'}: no such file; {tmp_path / 'b.tar'}: no such file"
        )
        with pytest.raises(UserError, match=r"the folder holds no \.tar file"):
            check(tmp_path)

    def test_findings_are_bounded_and_counts_are_not(self, tmp_path: Path) -> None:
        bad = [make_document(number) for number in range(6)]
        for document in bad:
            document["similarity_matrix"].pop()
        make_shard_of(tmp_path, *bad)
        report = check(tmp_path, max_findings=2)
        assert [(count.code, count.findings) for count in report.counts] == [("SIM001", 6)]
        assert [finding.key for finding in report.findings] == ["000000000000", "000000000001"]

    def test_json(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path / "shards")
        dataset.path(0, ".json").unlink()
        check(tmp_path / "shards", json=str(tmp_path / "report.json"))
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["schema_version"] == "1"
        assert (report["exit_code"], report["errors"], report["warnings"]) == (1, 1, 0)
        assert report["findings"][0] == {
            "shard": str(dataset.path(0)),
            "key": "",
            "path": "",
            "code": "SIDE001",
            "expected": "000000000.json",
            "got": "no such file",
        }

    def test_as_text(self, tmp_path: Path) -> None:
        change = edit_document(lambda d: d["image_info"][-1].update(matched_text_index=3))
        dataset = change(tmp_path)
        sink = io.StringIO()
        render(check(tmp_path), Console(file=sink, width=200))
        lines = sink.getvalue().splitlines()
        assert lines[0] == (
            f"{dataset.path(0)} 000000000001 $.image_info[1].matched_text_index ALN001 "
            "expected 0 to 2, got 3"
        )
        assert lines[-1].endswith("at level full: 1 error, 0 warnings")

    def test_a_check_that_fails_is_a_finding(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_dataset(tmp_path)

        def fail(task: object) -> None:
            raise RuntimeError("no luck")

        monkeypatch.setattr("pipelines.validate.run.check_shard", fail)
        report = check(tmp_path)
        assert report.exit_code == 1
        assert report.findings[0].code == "TAR012"
        assert report.findings[0].got == "RuntimeError: no luck"

    @pytest.mark.matrix
    @pytest.mark.ray
    @pytest.mark.slow
    def test_workers_find_the_same(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, shards=4)
        flip(dataset.path(2), 700)
        here = check(tmp_path)
        spec = Validate(shards=(str(tmp_path),), workers=2)
        assert validate(spec) == here


class TestChoices:
    """What counts, what fails the run, and how far one looks."""

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        """A conversion without a manifest (a warning) and with a bad sidecar (an error)."""
        dataset = make_dataset(tmp_path)
        (tmp_path / "manifest.json").unlink()
        dataset.path(1, ".json").unlink()
        return tmp_path

    def test_rules_that_do_not_count_do_not_fail_the_run(self, damaged: Path) -> None:
        assert codes(check(damaged)) == ["SIDE001", "MAN007"]
        assert codes(check(damaged, select=("MAN",))) == ["MAN007"]
        ignored = check(damaged, ignore=("SIDE",))
        assert (codes(ignored), ignored.exit_code) == (["MAN007"], 0)

    def test_warnings_fail_the_run_that_asks_for_it(self, damaged: Path) -> None:
        assert check(damaged, ignore=("SIDE",), fail_on="warning").exit_code == 1

    def test_without_shards_only_the_rules_can_be_asked_for(self) -> None:
        assert Validate(rules=True).shards == ()
        with pytest.raises(UserError, match="no shards given"):
            Validate()

    def test_a_forecast_looks_at_structure_unless_told(self, tmp_path: Path) -> None:
        assert Validate(shards=("a",)).depth == "full"
        assert Validate(shards=("a",), forecast=True).depth == "structure"
        assert Validate(shards=("a",), forecast=True, level="content").depth == "content"

    def test_two_datasets_that_share_documents(self, tmp_path: Path) -> None:
        make_dataset(tmp_path / "train", shards=3)
        make_dataset(tmp_path / "test", shards=1)
        report = check(tmp_path / "train", level="structure", against=(str(tmp_path / "test"),))
        assert [(c.code, c.findings, c.shards) for c in report.counts] == [
            ("LEAK001", 3, 1),
            ("LEAK002", 9, 1),
        ]
        assert report.across is not None
        assert (report.across.documents, report.exit_code) == (9, 1)
        assert check(tmp_path / "train", across=True).findings == []


class TestCommandLine:
    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "mmdata.cli", "validate", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment())

    def test_rules_are_listed(self) -> None:
        done = self.run("--rules")
        assert done.returncode == 0
        assert [rule.code for rule in RULES.values() if rule.code not in done.stdout] == []

    def test_each_format(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path)
        dataset.path(1, ".json").unlink()
        for form, begins in (
            ("json", "{\n"),
            ("jsonl", '{"type":"finding"'),
            ("github", "::error "),
        ):
            done = self.run(str(tmp_path), "--format", form, "--workers", "0")
            assert done.returncode == 1
            assert done.stdout.startswith(begins)

    def test_a_forecast_is_printed_behind_the_findings(self, tmp_path: Path) -> None:
        make_dataset(tmp_path)
        done = self.run(str(tmp_path), "--forecast", "--peer", "openflamingo", "--workers", "0")
        assert done.returncode == 0, done.stderr
        clean, forecast = done.stdout.index(": clean"), done.stdout.index("Forecast, threshold")
        assert clean < forecast < done.stdout.index("OpenFlamingo's loader")
        assert "dropped: images-too-few-bytes" in done.stdout
