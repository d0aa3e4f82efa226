"""Fields that options name: one that no record has is refused; groups are counted and compared."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmdata.cli.main import main
from mmdata.errors import UserError
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.secret_key import KEY_VARIABLE
from pipelines.custom.run import convert_custom
from pipelines.laion.run import convert_laion
from pipelines.mmc4.run import convert_mmc4
from pipelines.repair.options import Repair
from pipelines.repair.run import repair
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from schemas.validation import ValidationReport
from tests.corpus import documents_of, make_corpus, manifest_of, picture, rejects_of, snapshot
from tests.custom_factory import Conversations, make_conversations, one_array, record
from tests.laion_factory import options, write
from tests.shard_factory import flip

SPLIT = {"split": "train=0.6,val=0.4"}
KEY = "a secret of the clinic 4711"


def convert(source: Conversations, output: Path, **more: Any) -> ConversionResult:
    return convert_custom(source.options(output, **more), quiet=True)


def compared(one: Path, other: Path) -> ValidationReport:
    return validate(Validate(shards=(str(one),), against=(str(other),), workers=0))


def found(report: ValidationReport, rule: str) -> list[str]:
    return [finding.got for finding in report.findings if finding.code == rule]


def by_patient(folder: Path, name: str, patients: range, **more: Any) -> Path:
    """A dataset of its own, two documents a patient."""
    rows = [
        record(k * 2 + n + patients.start, ["ok0.jpg"], patient=f"p-{k}")
        for k in patients
        for n in range(2)
    ]
    source = one_array(folder / f"{name}-in", *rows)
    convert(source, folder / name, **({"split_by": "patient"} | more))
    return folder / name


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(KEY)
    return str(tmp_path / "key")


class TestNames:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({**SPLIT, "split_by": "patiet"}, "--split-by patiet: .*did you mean patient"),
            ({**SPLIT, "split_by": "patient.x"}, "did you mean patient"),
            ({**SPLIT, "split_by": "subject"}, r"did you mean meta\.subject"),
            ({**SPLIT, "split_by": "meta.sbject"}, r"did you mean meta\.subject"),
            ({**SPLIT, "split_by": "empty"}, "has no value in any record"),
            ({**SPLIT, "split_by": "url-host"}, "--split-by url-host"),
            ({"split_by": "patiet"}, "did you mean patient"),
            ({**SPLIT, "split_by": "zzzzzz"}, "the records have conversations, .*meta.subject"),
        ],
    )
    def test_one_that_no_record_has_is_refused(
        self, more: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        rows = [
            record(n, ["ok0.jpg"], patient=f"p{n}", meta={"subject": n}, empty=None)
            for n in range(4)
        ]
        with pytest.raises(UserError, match=message):
            convert(one_array(tmp_path, *rows), tmp_path / "out", **more)
        assert not (tmp_path / "out").exists()

    def test_fields_that_are_kept_are_names_too(self, key: str, tmp_path: Path) -> None:
        source = one_array(tmp_path, record(0, ["ok0.jpg"], language="en", note=None))
        hide = {"pseudonymise": True, "pseudonym_key": key}
        with pytest.raises(UserError, match=r"--keep-field langauge: .*did you mean language"):
            convert(source, tmp_path / "out", keep_field=("langauge",), **hide)
        assert not (tmp_path / "out").exists()
        assert convert(source, tmp_path / "out", keep_field=("note", "language"), **hide).complete

    def test_the_command_says_it_and_writes_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = make_conversations(tmp_path)
        command = source.command(
            tmp_path / "out", "--split", "a=0.5,b=0.5", "--split-by", "PATIENTS"
        )
        for more in ([], ["--dry-run"], ["--limit", "1"]):
            assert main([*command[command.index("convert-custom") :], "--workers", "0", *more]) == 2
            assert "did you mean patient?" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_the_other_converters_refuse_it(self, tmp_path: Path) -> None:
        corpus = make_corpus(tmp_path)
        with pytest.raises(UserError, match=r"--split-by urll: .*did you mean url"):
            convert_mmc4(corpus.options(tmp_path / "out", **SPLIT, split_by="urll"), quiet=True)
        for name in ("a.parquet", "a.csv", "a.jsonl"):
            table = [{"URL": "http://127.0.0.1:9/x", "TEXT": "t", "SITE": "s"}]
            source = write(tmp_path / name, table)
            given = options(source, tmp_path / "out", **SPLIT, split_by="SITES")
            with pytest.raises(UserError, match=r"--split-by SITES: .*did you mean SITE"):
                convert_laion(given, quiet=True)
        assert not (tmp_path / "out").exists()

    def test_one_that_some_records_lack_is_counted_and_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where it is a whole input that lacks it."""
        rows = [record(n, ["ok0.jpg"], patient=f"p{n // 3}") for n in range(12)]
        del rows[4]["patient"]
        source = one_array(tmp_path, *rows, name="a.json")
        other = one_array(tmp_path, *(record(n, ["ok1.jpg"]) for n in range(20, 23)), name="b.json")
        both = Conversations((*source.inputs, *other.inputs), source.root)
        command = both.command(tmp_path / "out", "--split-by", "patient", "--workers", "0")
        assert main(command[command.index("convert-custom") :]) == 0
        printed = capsys.readouterr().out
        assert "no record of b.json has the field patient" in printed
        assert "4 documents without patient: each is a group of its own" in printed
        assert "groups (patient)" in printed
        noted = [r for r in rejects_of(tmp_path / "out") if r["reason"] == "no-group"]
        assert [(r["file"], r["record"]) for r in noted] == [
            ("a.json", 4), ("b.json", 0), ("b.json", 1), ("b.json", 2)
        ]  # fmt: skip
        assert manifest_of(tmp_path / "out")["groups"] == {
            "by": "patient", "key": "public", "groups": 4, "documents_without": 4
        }  # fmt: skip

    def test_a_resume_knows_what_was_counted(self, tmp_path: Path) -> None:
        source = make_conversations(tmp_path)
        more = {**SPLIT, "split_by": "patient", "docs_per_shard": 4}
        assert convert(source, tmp_path / "out", **more, limit=4).limited
        assert convert(source, tmp_path / "out", **more).complete
        assert convert(source, tmp_path / "whole", **more).complete
        assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


class TestGroups:
    def test_they_are_in_tables_and_manifests_of_all_splits(self, tmp_path: Path) -> None:
        source = make_conversations(tmp_path, records=60)
        result = convert(source, tmp_path / "out", **SPLIT, split_by="patient", docs_per_shard=5)
        told = {name: part.groups for name, part in result.splits}
        held: dict[str, set[str]] = {}
        for name, groups in told.items():
            assert groups is not None
            tables = sorted((tmp_path / "out" / name).glob("*.samples.parquet"))
            held[name] = {g for path in tables for g in pq.read_table(path)["group"].to_pylist()}
            patients = {one["patient"] for one in documents_of(tmp_path / "out" / name).values()}
            assert groups.groups == len(held[name]) == len(patients)
            assert manifest_of(tmp_path / "out" / name)["groups"]["groups"] == len(patients)
        assert not held["train"] & held["val"]
        assert compared(tmp_path / "out" / "train", tmp_path / "out" / "val").errors == 0

    def test_without_a_field_that_was_named_nothing_changes(self, tmp_path: Path) -> None:
        """Splits by `id`, the default, tell no groups: ids of two datasets are equal by chance."""
        source = make_conversations(tmp_path)
        convert(source, tmp_path / "out")
        convert(source, tmp_path / "parts", **SPLIT)
        for folder in (tmp_path / "out", tmp_path / "parts" / "train"):
            assert "groups" not in manifest_of(folder)
            assert "group_by" not in manifest_of(folder)["options"]
            assert "group" not in pq.read_schema(folder / "000000000.samples.parquet").names

    def test_a_patient_in_two_datasets_is_found(self, tmp_path: Path) -> None:
        """Their documents are not equal; only the patient is."""
        train = by_patient(tmp_path, "train", range(6))
        test = by_patient(tmp_path, "test", range(4, 9))
        report = compared(train, test)
        assert len(found(report, "LEAK003")) == 2
        assert report.across is not None
        assert (report.across.groups, report.across.leaked_groups) == (6, 2)
        assert report.exit_code == 1
        apart = compared(train, by_patient(tmp_path, "apart", range(6, 9)))
        assert (found(apart, "LEAK003"), found(apart, "LEAK004")) == ([], [])

    def test_a_secret_key_hides_them_and_must_be_one_and_the_same(
        self, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = by_patient(tmp_path, "train", range(3), pseudonym_key=key)
        test = by_patient(tmp_path, "test", range(2, 4), pseudonym_key=key)
        assert len(found(compared(train, test), "LEAK003")) == 1
        public = by_patient(tmp_path, "public", range(2, 4))
        with pytest.raises(UserError, match=r"--against: .*different keys"):
            compared(train, public)
        assert KEY not in json.dumps(manifest_of(train))
        assert manifest_of(train)["groups"]["key"] not in ("public", KEY)
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        same = by_patient(tmp_path, "same", range(3))
        assert manifest_of(same)["groups"] == manifest_of(train)["groups"]
        inputs = str(tmp_path / "public-in" / "data.json")
        source = Conversations((inputs,), str(tmp_path / "public-in" / "images"))
        with pytest.raises(UserError, match=r"option group_key: was public"):
            convert(source, public, split_by="patient")

    def test_what_cannot_be_compared_is_said(self, tmp_path: Path) -> None:
        train = by_patient(tmp_path, "train", range(3))
        plain = by_patient(tmp_path, "plain", range(3, 5), split_by=None)
        by_id = by_patient(tmp_path, "by_id", range(5, 7), split_by="id")
        assert found(compared(train, plain), "LEAK004") == [f"none told in {plain}"]
        assert found(compared(plain, train), "LEAK004") == [f"none told in {plain}"]
        assert found(compared(train, by_id), "LEAK004") == ["groups by id, patient"]
        assert found(compared(plain, plain), "LEAK004") == []

    def test_a_manifest_that_counts_otherwise_is_found(self, tmp_path: Path) -> None:
        folder = by_patient(tmp_path, "train", range(3))
        manifest = manifest_of(folder)
        assert validate(Validate(shards=(str(folder),), workers=0)).findings == []
        for changed in ({"groups": 4}, {"by": "site"}, {"key": "x"}, {"documents_without": 1}):
            told = manifest | {"groups": manifest["groups"] | changed}
            (folder / "manifest.json").write_text(json.dumps(told))
            report = validate(Validate(shards=(str(folder),), workers=0, level="structure"))
            assert [finding.code for finding in report.findings] == ["MAN012"]

    def test_they_outlive_what_is_written_anew(self, tmp_path: Path) -> None:
        """Documents that repeat are taken out of drafts; the rest keeps its groups."""
        rows = [record(n, ["ok0.jpg"], "<image>\nwhat?", f"{n % 5}", patient=f"p{n % 5}")
                for n in range(8)]  # fmt: skip
        source = one_array(tmp_path, *rows)
        convert(source, tmp_path / "out", split_by="patient", dedupe="exact")
        groups = manifest_of(tmp_path / "out")["groups"]
        assert (groups["groups"], groups["documents_without"]) == (5, 0)
        assert validate(Validate(shards=(str(tmp_path / "out"),), workers=0)).errors == 0

    def test_they_outlive_a_repair(self, tmp_path: Path) -> None:
        train, test = (
            by_patient(tmp_path, name, patients)
            for name, patients in (("train", range(6)), ("test", range(4, 9)))
        )
        repair(Repair(shards=(str(train),), output=str(tmp_path / "mended"), workers=0), quiet=True)
        assert manifest_of(tmp_path / "mended")["groups"] == manifest_of(train)["groups"]
        report = compared(tmp_path / "mended", test)
        assert (len(found(report, "LEAK003")), found(report, "LEAK004")) == (2, [])

    def test_those_of_pairs_outlive_a_repair(self, tmp_path: Path) -> None:
        rows = [{"URL": f"http://{n % 3}.org/{n}.jpg", "TEXT": f"t {n}", "image": picture(n)}
                for n in range(6)]  # fmt: skip
        source = write(tmp_path / "rows.parquet", rows)
        given = options(
            source, tmp_path / "out", split_by="url-host", layout="pairs", fetcher="none"
        )
        convert_laion(given, quiet=True)
        flip(tmp_path / "out" / "000000000.tar", 700)
        mended = tmp_path / "mended"
        repair(Repair(shards=(str(tmp_path / "out"),), output=str(mended), workers=0), quiet=True)
        before, after = (
            {row["key"]: row["group"] for row in table.to_pylist()}
            for table in (
                pq.read_table(folder / "000000000.samples.parquet")
                for folder in (tmp_path / "out", mended)
            )
        )
        assert len(after) >= 5
        assert after == {key: before[key] for key in after}
