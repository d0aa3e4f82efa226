"""--split: a folder for each split, every document in one of them, a group never parted."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import UserError
from pipelines.conversion.options import parse_split
from pipelines.conversion.result import ConversionResult
from pipelines.conversion.status import status
from pipelines.conversion.status_options import Status
from pipelines.custom.run import convert_custom
from pipelines.mmc4.run import convert_mmc4
from pipelines.validate.options import Validate
from pipelines.validate.run import validate
from tests.corpus import documents_of, make_corpus, manifest_of, run_cli, snapshot
from tests.custom_factory import Conversations, make_conversations, one_array, record

SPLIT = {"split": "train=0.6,val=0.4", "split_by": "patient"}


def convert(source: Conversations, output: Path, **more: Any) -> ConversionResult:
    return convert_custom(source.options(output, **(SPLIT | more)), quiet=True)


def findings(folder: Path) -> list[str]:
    report = validate(Validate(shards=(str(folder),), workers=0))
    return [finding.code for finding in report.findings]


def test_every_document_is_in_one_split_and_no_patient_in_two(tmp_path: Path) -> None:
    source = make_conversations(tmp_path, records=60)
    result = convert(source, tmp_path / "out", docs_per_shard=5)
    convert_custom(source.options(tmp_path / "whole"), quiet=True)
    parts = {name: documents_of(tmp_path / "out" / name) for name in ("train", "val")}
    assert parts["train"] | parts["val"] == documents_of(tmp_path / "whole")
    patients = {name: {one["patient"] for one in part.values()} for name, part in parts.items()}
    assert patients["train"]
    assert patients["val"]
    assert not patients["train"] & patients["val"]
    assert [name for name, _ in result.splits] == ["train", "val"]
    assert result.tally.documents == sum(map(len, parts.values()))


def test_each_split_is_a_whole_conversion(tmp_path: Path) -> None:
    source = make_conversations(tmp_path, records=60)
    result = convert(source, tmp_path / "out", docs_per_shard=5)
    assert (result.complete, result.exit_code) == (True, 0)
    records = 0
    for name in ("train", "val"):
        folder = tmp_path / "out" / name
        assert findings(folder) == []
        manifest = manifest_of(folder)
        totals = manifest["totals"]
        assert totals["records"] + totals["other_splits"] == 60
        assert manifest["options"]["split"] == name
        records += totals["records"]
        found = status(Status(output=str(folder)))
        assert (found.state, found.records_done) == ("complete", 60)
    assert records == 60


def test_a_broken_record_counts_once(tmp_path: Path) -> None:
    source = one_array(tmp_path, *(record(n, ["ok0.jpg"]) for n in range(20)), 7, {"image": "x"})
    result = convert(source, tmp_path / "out", split_by="id")
    assert result.tally.documents_dropped == {"not-an-object": 1, "unknown-format": 1}
    assert (result.tally.records, result.tally.documents) == (22, 20)
    first, second = (part.tally for _, part in result.splits)
    assert first.documents_dropped == result.tally.documents_dropped
    assert second.documents_dropped == {}


def test_again_it_keeps_all_and_a_part_that_was_lost_comes_back(tmp_path: Path) -> None:
    source = make_conversations(tmp_path)
    convert(source, tmp_path / "out", docs_per_shard=4)
    before = snapshot(tmp_path / "out")
    (tmp_path / "out" / "val" / "000000000.json").unlink()
    result = convert(source, tmp_path / "out", docs_per_shard=4)
    assert result.shards_written == 1
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize(
    "more", [{"split_seed": 1}, {"split_by": "id"}, {"split": "train=0.5,val=0.5"}]
)
def test_another_split_is_refused_over_the_same_output(
    more: dict[str, Any], tmp_path: Path
) -> None:
    source = make_conversations(tmp_path)
    convert(source, tmp_path / "out")
    with pytest.raises(UserError, match="holds another conversion"):
        convert(source, tmp_path / "out", **more)


def test_a_folder_without_splits_is_refused(tmp_path: Path) -> None:
    source = make_conversations(tmp_path)
    convert_custom(source.options(tmp_path / "out"), quiet=True)
    with pytest.raises(UserError, match="holds a conversion without splits"):
        convert(source, tmp_path / "out")


def test_mmc4_is_split_by_host(tmp_path: Path) -> None:
    """The option is every converter's."""
    corpus = make_corpus(tmp_path, records=40)
    for path in corpus.docs:
        assert Path(path).stat().st_size
    more = {"split": "train=0.5,val=0.5", "split_by": "url-host"}
    convert_mmc4(corpus.options(tmp_path / "out", **more), quiet=True)
    sizes = sorted(len(documents_of(tmp_path / "out" / name)) for name in ("train", "val"))
    convert_mmc4(corpus.options(tmp_path / "whole"), quiet=True)
    assert sizes == [0, len(documents_of(tmp_path / "whole"))]  # all are of one host
    assert findings(tmp_path / "out" / "train") == findings(tmp_path / "out" / "val") == []
    more["split_by"] = "url"
    convert_mmc4(corpus.options(tmp_path / "urls", **more), quiet=True)
    assert all(documents_of(tmp_path / "urls" / name) for name in ("train", "val"))


def test_the_command_tells_each_split_and_logs_both(tmp_path: Path) -> None:
    source = make_conversations(tmp_path)
    log = tmp_path / "log.jsonl"
    done = run_cli(
        source.command(
            tmp_path / "out", "--workers", "0", "--split", "train=0.6,val=0.4", "--split-by",
            "patient", "--log-json", str(log),
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "split train\n" in done.stdout
    assert "split val\n" in done.stdout
    assert "of other splits" in done.stdout
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events.count("end") == 2


@pytest.mark.parametrize(
    "text", ["", "train", "train=1", "train=0.9,val=0.2", "train=0.5,train=0.5", "a b=0.5,c=0.5",
             "../x=0.5,y=0.5", "train=nan,val=0.5"],
)  # fmt: skip
def test_what_is_no_split(text: str) -> None:
    with pytest.raises(UserError, match="--split"):
        parse_split(text)
