"""The output folder: what counts as committed, what is swept and cleared, and in which order."""

import json
import os
from pathlib import Path

import pytest

from mmdata.errors import UserError
from pipelines.conversion.output import check_is_ours, clear, committed, sweep, write_manifest
from pipelines.conversion.output_files import LiveFiles
from pipelines.conversion.plan import ConversionPlan, load_plan
from pipelines.mmc4.run import convert_mmc4
from tests.corpus import make_corpus


@pytest.fixture
def done(tmp_path: Path) -> tuple[str, ConversionPlan]:
    """A conversion of three shards."""
    output = tmp_path / "out"
    corpus = make_corpus(tmp_path, records=12, files=1)
    convert_mmc4(corpus.options(output, docs_per_shard=4), quiet=True)
    plan = load_plan(str(output))
    assert plan is not None
    return str(output), plan


def test_a_shard_is_committed_with_its_sidecar_and_sizes(done: tuple[str, ConversionPlan]) -> None:
    output, plan = done
    assert committed(output, 0, plan.fingerprint) is not None
    assert committed(output, 0, "another") is None
    assert committed(output, 3, plan.fingerprint) is None


@pytest.mark.parametrize("ending", [".tar", ".samples.parquet", ".rejects.jsonl"])
@pytest.mark.parametrize("damage", ["gone", "shorter", "changed"])
def test_a_shard_whose_files_are_not_what_was_committed_does_not_exist(
    ending: str, damage: str, done: tuple[str, ConversionPlan]
) -> None:
    output, plan = done
    path = Path(output, "000000001" + ending)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "shorter" else data[:-1] + b"?")
    seen = committed(output, 1, plan.fingerprint)
    assert (seen is None) == (damage != "changed")  # a size costs nothing to look at, a hash does
    assert committed(output, 1, plan.fingerprint, verify=True) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[1]"])
def test_a_sidecar_that_cannot_be_read_commits_nothing(
    data: bytes, done: tuple[str, ConversionPlan]
) -> None:
    output, plan = done
    Path(output, "000000001.json").write_bytes(data)
    assert committed(output, 1, plan.fingerprint) is None


def test_clearing_takes_the_word_back_first_and_leaves_what_is_not_ours(
    done: tuple[str, ConversionPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = done
    Path(output, "notes.txt").write_bytes(b"")
    Path(output, "00000.tar").write_bytes(b"")
    gone: list[str] = []
    unlink = os.unlink

    def watch(path: str) -> None:
        gone.append(os.path.basename(path))
        unlink(path)

    monkeypatch.setattr(os, "unlink", watch)
    clear(output)
    assert sorted(os.listdir(output)) == ["00000.tar", "notes.txt"]
    assert gone[0] == "manifest.json"
    assert gone[-1] == "plan.json"
    sidecars = [gone.index(name) for name in gone if name[0].isdigit() and name.endswith(".json")]
    others = [gone.index(name) for name in gone if name.endswith((".tar", ".parquet", ".jsonl"))]
    assert max(sidecars) < min(others)


def test_sweeping_removes_temporary_files_of_ours_only(tmp_path: Path) -> None:
    for name in (f".000000000.tar.{'a' * 32}.tmp", ".hidden", "x.tmp", ".user.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert sweep(str(tmp_path)) == 1
    assert sorted(os.listdir(tmp_path)) == [".hidden", ".user.tmp", "x.tmp"]


def test_the_manifest_is_written_after_the_sizes_and_is_the_same_again(
    done: tuple[str, ConversionPlan],
) -> None:
    output, plan = done
    before = {name: Path(output, name).read_bytes() for name in ("manifest.json", "sizes.json")}
    write_manifest(output, plan, LiveFiles(output))
    assert before == {name: Path(output, name).read_bytes() for name in before}
    manifest = json.loads(before["manifest.json"])
    assert [row["shard"] for row in manifest["shards"]] == [f"{k:09d}.tar" for k in range(3)]
    assert (
        os.stat(Path(output, "sizes.json")).st_mtime_ns
        <= os.stat(Path(output, "manifest.json")).st_mtime_ns
    )


def test_a_manifest_is_not_written_over_a_missing_shard(done: tuple[str, ConversionPlan]) -> None:
    output, plan = done
    for name in ("manifest.json", "000000001.json"):
        Path(output, name).unlink()
    with pytest.raises(UserError, match=r"000000001\.json: gone while the run was going"):
        write_manifest(output, plan, LiveFiles(output))
    assert not Path(output, "manifest.json").exists()


@pytest.mark.parametrize(
    ("names", "way_out"),
    [(["000000000.tar"], "--overwrite to replace them"), (["00000.tar"], "move them away")],
)
def test_shards_without_a_plan_are_not_ours(names: list[str], way_out: str, tmp_path: Path) -> None:
    """`--overwrite` is offered only where it would replace them."""
    check_is_ours(str(tmp_path / "not-made-yet"), None)
    check_is_ours(str(tmp_path), None)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=way_out):
        check_is_ours(str(tmp_path), None)
