"""What repeats over shards, what two datasets share, and which shard is far from the others."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.validation import across
from mmdata.validation.across import Described, compare_shards, describe
from mmdata.validation.findings import Findings
from schemas.validation import AcrossReport
from tests.shard_factory import (
    Dataset,
    encode,
    foreign,
    make_dataset,
    make_document,
    make_pairs,
    make_tar,
)


def compare(
    own: Path, other: Path | None = None, *, max_findings: int = 100
) -> tuple[AcrossReport, Findings]:
    findings = Findings("dataset", max_findings)
    paths, others = (sorted(map(str, one.glob("*.tar"))) if one else [] for one in (own, other))
    return compare_shards(paths, others, findings), findings


def written(folder: Path, *shards: list[dict[str, Any] | bytes]) -> Path:
    folder.mkdir()
    Dataset(folder, list(shards)).write()
    return folder


def test_what_is_there_once_has_no_findings(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    report, findings = compare(tmp_path)
    assert findings.counts == {}
    assert (report.documents, report.images) == (6, 18)
    assert report.lowest_mean is not None


def test_a_document_in_two_shards(tmp_path: Path) -> None:
    one, two = make_document(1), make_document(2)
    report, findings = compare(written(tmp_path / "a", [one], [two, one]))
    assert findings.counts == {"DUP001": 1, "DUP002": 2}
    assert (report.repeated_documents, report.repeated_images) == (1, 2)
    found = findings.kept[0]
    assert (Path(found.shard).name, found.key) == ("000000001.tar", "000000000002")
    assert found.got == "equal to 000000000000 of 000000000.tar"


def test_a_document_with_other_sentences_is_another_one(tmp_path: Path) -> None:
    other = make_document(1)
    other["text_list"] = [*other["text_list"][:-1], "Another end."]
    _, findings = compare(written(tmp_path / "a", [make_document(1), other]))
    assert findings.counts == {"DUP002": 2}


def test_what_two_datasets_share(tmp_path: Path) -> None:
    train = written(tmp_path / "train", [make_document(1), make_document(2)], [make_document(3)])
    test = written(tmp_path / "test", [make_document(3), make_document(4)])
    report, findings = compare(train, test)
    assert findings.counts == {"LEAK001": 1, "LEAK002": 2}
    assert (report.documents, report.leaked_documents, report.leaked_images) == (3, 1, 2)
    found = findings.kept[0]
    assert (found.shard, found.key) == (str(train / "000000001.tar"), "000000000002")
    assert found.got == "equal to 000000000000 of 000000000.tar"


def test_shards_of_others_are_read(tmp_path: Path) -> None:
    ours = written(tmp_path / "ours", [make_document(1)])
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    members = [(f"{n}.json", encode(foreign(make_document(n)))) for n in (1, 2)]
    (theirs / "0.tar").write_bytes(make_tar([*members, ("3.json", b"{")]))
    report, _ = compare(theirs, ours)
    assert (report.documents, report.leaked_documents) == (3, 1)


def test_pairs_are_compared(tmp_path: Path) -> None:
    make_pairs(tmp_path / "a")
    make_pairs(tmp_path / "b", samples=2)
    report, _ = compare(tmp_path / "a", tmp_path / "b")
    assert (report.documents, report.images, report.leaked_documents) == (3, 3, 2)


def test_a_shard_that_drifts(tmp_path: Path) -> None:
    shards: list[list[dict[str, Any] | bytes]] = [
        [make_document(shard * 40 + number, images=3) for number in range(40)] for shard in range(4)
    ]
    for document in shards[2]:
        assert isinstance(document, dict)
        for image in document["image_info"]:
            image["matched_sim"] -= 0.15
    report, findings = compare(written(tmp_path / "a", *shards))
    assert [(f.code, Path(f.shard).name) for f in findings.kept] == [("DRIFT001", "000000002.tar")]
    assert report.lowest_mean == pytest.approx(report.mean_similarity - 0.1125, abs=0.02)


def test_findings_are_bounded_and_counts_are_not(tmp_path: Path) -> None:
    same = make_document(1, images=1)
    _, findings = compare(written(tmp_path / "a", [same] * 9, [same] * 9), max_findings=2)
    assert findings.counts["DUP001"] == 17
    assert sum(finding.code == "DUP001" for finding in findings.kept) == 2
    assert findings.shards["DUP001"] == 2


def test_a_table_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    dataset.path(1, ".samples.parquet").write_bytes(b"no table")
    report, findings = compare(tmp_path)
    assert findings.counts == {"TAR012": 1}
    assert findings.kept[0].shard == str(dataset.path(1))
    assert report.documents == 3


def test_a_table_and_its_documents_are_described_alike(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, shards=1)
    tabled = list(describe(str(dataset.path())))
    dataset.path(0, ".samples.parquet").unlink()
    assert list(describe(str(dataset.path()))) == tabled


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=4),
    st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=3),
)
def test_counts_are_those_of_comparing_each_with_each(
    own: list[list[int]], other: list[list[int]]
) -> None:
    shards = {f"own{n}": shard for n, shard in enumerate(own)}
    others = {f"other{n}": shard for n, shard in enumerate(other)}
    every = shards | others

    def described(path: str) -> list[Described]:
        return [
            Described(str(value), value.to_bytes(16, "little"), [], []) for value in every[path]
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(across, "describe", described)
        patch.setattr(across, "_keys", lambda path: [str(value) for value in every[path]])
        report = compare_shards(list(shards), list(others), Findings("dataset", 3))
    here = Counter(value for shard in own for value in shard)
    there = {value for shard in other for value in shard}
    assert report.repeated_documents == sum(count - 1 for count in here.values())
    assert report.leaked_documents == sum(here[value] for value in there)
