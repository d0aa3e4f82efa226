"""A run of which every record is of another form is never a success, whatever else there is."""

from pathlib import Path
from typing import Any

import pytest

from mmdata.cli.main import main
from pipelines.conversion.form import PROBED_RECORDS, FormTally
from schemas.manifest import Tally
from schemas.reasons import FORM_DROPS, DocumentDrop
from tests.corpus import lines, picture, rejects_of

GOOD = {
    "image": "1.jpg",
    "conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A."}],
}
BAD = {"image": "1.jpg", "conversatons": []}


def file_of(folder: Path, records: list[Any], name: str = "a.jsonl") -> str:
    (folder / name).write_bytes(lines(records))
    return str(folder / name)


def convert(folder: Path, *inputs: str, more: tuple[str, ...] = ()) -> int:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "1.jpg").write_bytes(picture(0))
    places = ["--image-root", str(folder / "images"), "--output", str(folder / "out")]
    return main(["convert-custom", *inputs, *places, "--workers", "0", *more])


class TestTheFirstRecords:
    @pytest.mark.parametrize("count", [1, 3, PROBED_RECORDS, PROBED_RECORDS + 20])
    def test_all_of_another_form_are_refused_with_three_and_what_they_look_like(
        self, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        records = [BAD] * count + ([GOOD] if count > PROBED_RECORDS else [])
        assert convert(tmp_path, file_of(tmp_path, records)) == 2
        said = capsys.readouterr().err
        which = f"first {PROBED_RECORDS}" if count >= PROBED_RECORDS else str(count)
        assert f"none of the {which} records can be read (unknown-format: " in said
        assert said.count("a.jsonl: record ") == min(count, 3)
        assert "got conversatons, image" in said
        assert "conversatons: is conversations meant? rename the field" in said
        assert not (tmp_path / "out").exists()

    def test_they_may_stand_in_several_inputs(self, tmp_path: Path) -> None:
        inputs = [file_of(tmp_path, [BAD] * 60, f"{k}.jsonl") for k in range(2)]
        assert convert(tmp_path, *inputs) == 2
        assert not (tmp_path / "out").exists()

    def test_one_good_record_lets_the_run_go(self, tmp_path: Path) -> None:
        records = [BAD] * (PROBED_RECORDS - 1) + [GOOD]
        assert convert(tmp_path, file_of(tmp_path, records)) == 0

    def test_records_that_are_dropped_for_other_reasons_are_no_failure(
        self, tmp_path: Path
    ) -> None:
        without = {"conversations": GOOD["conversations"][1:]}  # type: ignore[index]
        assert convert(tmp_path, file_of(tmp_path, [without] * 3)) == 0

    def test_details_are_not_told_with_pseudonyms(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("MMDATA_PSEUDONYM_KEY", "0" * 32)
        record = {"conversations": "secret"}
        assert convert(tmp_path, file_of(tmp_path, [record]), more=("--pseudonymise",)) == 2
        said = capsys.readouterr().err
        assert "record 0: bad-schema" in said
        assert "secret" not in said

    def test_documents_of_mmc4(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "images").mkdir()
        command = ["convert-mmc4", file_of(tmp_path, [GOOD]), "--images", str(tmp_path / "images")]
        assert main([*command, "--output", str(tmp_path / "out"), "--workers", "0"]) == 2
        said = capsys.readouterr().err
        assert "bad-schema: $.text_list: expected an array, got nothing" in said
        assert "this looks like conversations: convert-custom reads them" in said

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("a.jsonl", '{"image": "1.jpg", "caption": "a"}\n', "no column of URLs"),
            ("a.jsonl", '[{"url": "http://x", "caption": "a"}]', "jq -c '.[]'"),
            ("a.csv", "url,caption\nhttp://x,a,b\n", "line 2: expected 2 fields, got 3"),
            ("a.csv", "url,caption\n,a\n,b\n", "no-url: url: expected a URL"),
            ("a.tsv", "url\tcaption\nhttp://x\t\n", "no-text: caption: expected a caption"),
        ],
    )
    def test_lists_of_pairs(
        self, name: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / name).write_text(text)
        output = str(tmp_path / "out")
        command = ["convert-laion", str(tmp_path / name), "--output", output, "--workers", "0"]
        assert main(command) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestOneInputAmongOthers:
    @pytest.mark.parametrize("more", [(), ("--split", "train=0.5,val=0.5")])
    def test_it_is_named_and_the_others_are_converted(
        self, more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good = file_of(tmp_path, [GOOD | {"id": str(k)} for k in range(6)], "a.jsonl")
        bad = file_of(tmp_path, [BAD, {"conversations": 7}], "b.jsonl")
        for _ in range(2):  # the same command again says the same
            assert convert(tmp_path, good, bad, more=more) == 1
            said = " ".join(capsys.readouterr().out.split())
            told = "not of the form: b.jsonl: all of its 2 records were dropped (bad-schema: 1, "
            assert said.count(told + "unknown-format: 1)") == 1
            assert "a.jsonl: all of" not in said

    def test_one_good_record_is_enough(self, tmp_path: Path) -> None:
        inputs = [file_of(tmp_path, [GOOD], "a.jsonl"), file_of(tmp_path, [BAD, GOOD], "b.jsonl")]
        assert convert(tmp_path, *inputs) == 0
        assert len(rejects_of(tmp_path / "out")) == 1

    def test_the_counts_of_all_its_shards_decide(self) -> None:
        bad = Tally(records=2, documents_dropped={"bad-json": 2})
        for other in (
            Tally(records=1, documents=1),
            Tally(records=1, documents_dropped={"no-images-left": 1}),
            Tally(records=0, other_splits=1),
            None,
        ):
            tally = FormTally()
            tally.add("a", bad)
            tally.add_missing("a") if other is None else tally.add("a", other)
            tally.add("b", bad)
            assert [(entry.name, entry.records) for entry in tally.unfit()] == [("b", 2)]


def test_what_is_missing_filtered_or_repeated_is_not_of_the_form() -> None:
    wanted = {
        "no-images-listed", "no-images-left", "image-missing", "image-unusable", "url-duplicate",
        "duplicate-document", "unsafe", "watermark", "nsfw", "low-caption-similarity", "lost",
        "listed-too-small", "listed-bad-aspect", "too-few-images", "images-too-large",
        "tag-mismatch",
    }  # fmt: skip
    assert {reason.value for reason in set(DocumentDrop) - FORM_DROPS} == wanted
