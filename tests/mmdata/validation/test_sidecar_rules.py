"""Sidecar, samples table and rejects: each lie in one of them is found by another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdata.validation.shard import ShardTask, check_shard
from tests.shard_factory import Dataset, make_dataset, make_pairs, sha256, write_json


def found(dataset: Dataset, shard: int = 0) -> list[tuple[str, str, str, str]]:
    task = ShardTask(path=str(dataset.path(shard)), level="full", max_findings=9, owed=True)
    return [(f.code, f.path, f.expected, f.got) for f in check_shard(task).findings]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path)


def edit_sidecar(dataset: Dataset, change: Callable[[dict[str, Any]], object]) -> None:
    path = dataset.path(0, ".json")
    sidecar = json.loads(path.read_text())
    change(sidecar)
    write_json(path, sidecar)


def edit_row(dataset: Dataset, **values: Any) -> None:
    rows = dataset.read_samples()
    rows[1] |= values
    dataset.write_samples(0, rows)
    dataset.sign()


def test_a_sound_shard_has_no_findings(dataset: Dataset) -> None:
    assert found(dataset) == found(dataset, 1) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            lambda s: s.update(bytes=7),
            ("SIDE004", "$.bytes", "7 bytes", "{bytes}"),
        ),
        (
            lambda s: s.update(sha256="0" * 64),
            ("SIDE005", "$.sha256", "0" * 64, "{sha256}"),
        ),
        (
            lambda s: s.update(shard="000000009.tar"),
            ("SIDE003", "$.shard", "'000000000.tar'", "'000000009.tar'"),
        ),
        (
            lambda s: s.update(format_version="9"),
            ("SIDE014", "$.format_version", "'1'", "'9'"),
        ),
        (lambda s: s.update(bytes="7"), ("SIDE002", "$.bytes", "`int`", "`str`")),
        (
            lambda s: s["tally"].update(images=8),
            ("SIDE012", "$.tally.images", "9, as in the shard", "8"),
        ),
        (
            lambda s: s["source"][0].update(num_records=4),
            ("SIDE012", "$.source", "spans of 3 records", "4"),
        ),
        (
            lambda s: s["tally"]["documents_dropped"].update({"bad-json": 1}),
            (
                "SIDE011",
                "$.tally.documents_dropped.bad-json",
                "0, the lines in 000000000.rejects.jsonl",
                "1",
            ),
        ),
    ],
)
def test_a_sidecar_that_lies(
    dataset: Dataset, change: Callable[[dict[str, Any]], object], finding: tuple[str, ...]
) -> None:
    edit_sidecar(dataset, change)
    tar = dataset.path().read_bytes()
    expected = tuple(part.format(bytes=len(tar), sha256=sha256(tar)) for part in finding)
    assert expected in found(dataset)


def test_a_sidecar_that_is_no_json(dataset: Dataset) -> None:
    dataset.path(0, ".json").write_bytes(b"{")
    assert [code for code, *_ in found(dataset)] == ["SIDE002"]


@pytest.mark.parametrize("ending", [".samples.parquet", ".rejects.jsonl"])
def test_a_file_of_the_shard_is_missing(dataset: Dataset, ending: str) -> None:
    dataset.path(0, ending).unlink()
    code = "SIDE006" if "samples" in ending else "SIDE010"
    assert [found[0] for found in found(dataset)] == [code]


def test_a_samples_table_of_another_shard(dataset: Dataset) -> None:
    dataset.path(0, ".samples.parquet").write_bytes(
        dataset.path(1, ".samples.parquet").read_bytes()
    )
    codes = {code for code, *_ in found(dataset)}
    assert {"SIDE007", "SIDE008"} <= codes


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"key": "000000000009"}, "key"),
        ({"offset": 512}, "offset"),
        ({"size": 1}, "size"),
    ],
)
def test_a_row_that_is_not_the_member(dataset: Dataset, values: dict[str, Any], path: str) -> None:
    edit_row(dataset, **values)
    assert ("SIDE008", f"samples[1].{path}") in [finding[:2] for finding in found(dataset)]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"sha256": "0" * 64}, "SIDE009"),
        ({"sentences": 9}, "SIDE013"),
        ({"text_bytes": 9}, "SIDE013"),
        ({"text_sha256": "0" * 64}, "SIDE013"),
        ({"matched": [0, 0, 0]}, "SIDE013"),
        ({"similarity": [0.1, 0.1, 0.1]}, "SIDE013"),
        ({"margin": [0.5, 0.5, None]}, "SIDE013"),
        ({"image_bytes": [1, 2, 3]}, "SIDE013"),
        ({"width": [1, 2, 3]}, "SIDE013"),
        ({"image_sha256": ["0" * 64] * 3}, "SIDE013"),
    ],
)
def test_a_row_that_is_not_the_document(
    dataset: Dataset, values: dict[str, Any], code: str
) -> None:
    edit_row(dataset, **values)
    assert [(finding[0], finding[1]) for finding in found(dataset)] == [
        (code, f"samples[1].{next(iter(values))}")
    ]


def test_rejects_account_for_what_was_dropped(dataset: Dataset) -> None:
    rejects = [
        {"action": "dropped-image", "reason": "missing", "file": "f", "record": 0, "key": "k"},
        {"action": "dropped-document", "reason": "bad-json", "file": "f", "record": 1, "key": "l"},
    ]
    lines = [json.dumps(reject) for reject in rejects]
    dataset.path(0, ".rejects.jsonl").write_text("\n".join(lines) + "\n")
    dataset.sign()
    assert found(dataset) == []
    edit_sidecar(dataset, lambda s: s["tally"]["images_dropped"].clear())
    assert found(dataset) == [
        (
            "SIDE011",
            "$.tally.images_dropped.missing",
            "1, the lines in 000000000.rejects.jsonl",
            "0",
        ),
        ("SIDE012", "$.tally.images_listed", "9, images and drops together", "10"),
    ]


def test_somebody_elses_json_beside_a_tar_is_no_sidecar(tmp_path: Path) -> None:
    path = make_pairs(tmp_path)
    path.with_suffix(".json").write_text('{"count": 3}')
    task = ShardTask(path=str(path), level="full", max_findings=9, owed=False)
    assert check_shard(task).findings == []
