"""Manifest, sizes.json and what must hold across shards."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdata.validation.findings import Findings
from mmdata.validation.manifest_rules import check_folder, read_folder
from mmdata.validation.shard import ShardTask, check_shard
from tests.shard_factory import Dataset, flip, make_dataset, write_json

FINGERPRINT = Dataset(Path(), []).fingerprint
#: The same with `{"max_side": 336}` for options.
MAX_SIDE_336 = "edfb5e12c7a488299c2e620cdeac3a60e61f6fc395f7d7fcfcd0cbb4394f98b8"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path)


def found(dataset: Dataset, names: set[str] | None = None) -> list[tuple[str, str, str, str]]:
    names = names or {path.name for path in dataset.folder.glob("*.tar")}
    findings = Findings("manifest.json", 100)
    folder = read_folder(str(dataset.folder), names, findings)
    tasks = [
        ShardTask(path=str(dataset.folder / n), level="content", max_findings=9, owed=folder.ours)
        for n in sorted(names)
    ]
    check_folder(folder, [check_shard(task) for task in tasks], findings)
    return [(f.code, f.path, f.expected, f.got) for f in findings.kept]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def test_a_sound_folder_has_no_findings(dataset: Dataset) -> None:
    assert found(dataset) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            lambda m: m["shards"][1].update(samples=4),
            ("MAN004", "$.shards[000000001.tar].samples", "3, as in the shard", "4"),
        ),
        (
            lambda m: m["totals"].update(sentences=1),
            ("MAN006", "$.totals.sentences", "18, the sum of the sidecars", "1"),
        ),
        (
            lambda m: m.update(fingerprint="e" * 64),
            (
                "MAN008",
                "$.shards[000000000.tar].fingerprint",
                f"'{'e' * 64}', as in the manifest",
                f"'{FINGERPRINT}' in the sidecar",
            ),
        ),
        (
            lambda m: m["options"].update(max_side=336),
            ("MAN010", "$.fingerprint", MAX_SIDE_336, FINGERPRINT),
        ),
        (
            lambda m: m["shards"][1].update(sidecar="000000007.json"),
            (
                "MAN004",
                "$.shards[000000001.tar].sidecar",
                "'000000001.json', as in the shard",
                "'000000007.json'",
            ),
        ),
        (
            lambda m: m.update(shards=7),
            ("MAN001", "$.shards", "`array`", "`int`"),
        ),
    ],
)
def test_a_manifest_that_lies(
    dataset: Dataset, change: Callable[[dict[str, Any]], object], finding: tuple[str, ...]
) -> None:
    edit(dataset.folder / "manifest.json", change)
    assert finding in found(dataset)


def test_a_sidecar_that_was_changed_since(dataset: Dataset) -> None:
    path = dataset.path(1, ".json")
    path.write_text(path.read_text() + " ")
    assert [finding[:2] for finding in found(dataset)] == [
        ("MAN005", "$.shards[000000001.tar].sidecar_sha256")
    ]


def test_sizes(dataset: Dataset) -> None:
    edit(dataset.folder / "sizes.json", lambda sizes: sizes.update({"000000001.tar": 9}))
    assert found(dataset) == [("MAN009", "sizes.json $.000000001.tar", "3", "9")]
    (dataset.folder / "sizes.json").unlink()
    assert [code for code, *_ in found(dataset)] == ["MAN009"]


def test_a_missing_shard_matters_only_when_the_folder_was_asked_for(dataset: Dataset) -> None:
    dataset.path(1).unlink()
    assert [code for code, *_ in found(dataset)] == ["MAN002"]
    shutil.copy(dataset.path(0), dataset.folder / "000000002.tar")
    assert [code for code, *_ in found(dataset, {"000000000.tar"})] == []


def test_an_unfinished_conversion(dataset: Dataset) -> None:
    (dataset.folder / "manifest.json").unlink()
    assert [code for code, *_ in found(dataset)] == ["MAN007"]
    for shard in (0, 1):
        for ending in (".json", ".samples.parquet", ".rejects.jsonl"):
            dataset.path(shard, ending).unlink()
    assert found(dataset) == []  # just tars: nobody's conversion
    (dataset.folder / "plan.json").write_text("{}")
    assert [code for code, *_ in found(dataset)] == ["MAN007"]


def test_somebody_elses_manifest_is_none_of_ours(dataset: Dataset) -> None:
    (dataset.folder / "manifest.json").write_text('{"name": "app"}')
    findings = Findings("manifest.json", 100)
    assert not read_folder(str(dataset.folder), set(), findings).ours
    assert findings.kept == []


def test_the_damaged_one_of_shard_and_manifest_is_not_the_one_expected(dataset: Dataset) -> None:
    """Manifest, sidecar and shard are three: two that agree say what the third should be."""
    listed = json.loads((dataset.folder / "manifest.json").read_text())["shards"][0]["sha256"]
    flip(dataset.path(), 700)
    damaged = hashlib.sha256(dataset.path().read_bytes()).hexdigest()
    place = "$.shards[000000000.tar].sha256"
    expected = f"{listed!r}, as in the manifest"
    assert ("MAN004", place, expected, f"{damaged!r} in the shard") in found(dataset)


def test_a_damaged_hash_in_the_manifest_is_what_was_got(dataset: Dataset) -> None:
    good = hashlib.sha256(dataset.path().read_bytes()).hexdigest()
    edit(dataset.folder / "manifest.json", lambda m: m["shards"][0].update(sha256="d" * 64))
    place = "$.shards[000000000.tar].sha256"
    assert ("MAN004", place, f"{good!r}, as in the shard", repr("d" * 64)) in found(dataset)
