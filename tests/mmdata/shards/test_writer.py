"""A shard appears whole and last by its sidecar, is the same every time, and tells of itself."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.shards import writer as module
from mmdata.shards.writer import LeaseLostError, ShardWriter, samples_table
from schemas.manifest import SAMPLES_COLUMNS, Reject, Sidecar, SourceSpan

SPAN = SourceSpan(file="docs.jsonl", first_record=7, num_records=1)


def row(data: bytes) -> dict[str, Any]:
    return {
        "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "sentences": 1,
        "text_bytes": 1, "text_sha256": "", "matched": [0], "similarity": [0.25],
        "margin": [None], "image_bytes": [3], "width": [4], "height": [5], "format": ["png"],
        "image_sha256": [""], "reencoded": [False],
    }  # fmt: skip


def fill(folder: Path, samples: dict[int, bytes]) -> ShardWriter:
    writer = ShardWriter(str(folder), 3, key_prefix="p-")
    for ordinal, data in samples.items():
        writer.add(ordinal, SPAN, [data[:2], data[2:]], row(data))
    writer.reject(
        Reject(action="dropped-document", reason="no-text", file="docs.jsonl", record=8, key="k")
    )
    return writer


def commit(writer: ShardWriter, *, may: bool = True) -> Sidecar:
    return writer.commit(
        kind="mmc4", fingerprint="f", first_ordinal=7, source=[SPAN], may_commit=lambda: may
    )


SAMPLES = {7: b'{"a": 1}', 8: b"{}" * 600}


def test_nothing_shows_before_the_commit(tmp_path: Path) -> None:
    writer = fill(tmp_path, SAMPLES)
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_committed_shard_is_what_its_sidecar_says(tmp_path: Path) -> None:
    sidecar = commit(fill(tmp_path, SAMPLES))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000003.json", "000000003.rejects.jsonl", "000000003.samples.parquet", "000000003.tar",
    ]  # fmt: skip
    raw = (tmp_path / "000000003.json").read_bytes()
    assert msgspec.json.decode(raw, type=Sidecar) == sidecar
    for name, size, sha256 in (
        ("000000003.tar", sidecar.bytes, sidecar.sha256),
        ("000000003.samples.parquet", sidecar.samples_bytes, sidecar.samples_sha256),
        ("000000003.rejects.jsonl", sidecar.rejects_bytes, sidecar.rejects_sha256),
    ):
        data = (tmp_path / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)
    assert json.loads((tmp_path / "000000003.rejects.jsonl").read_text())["record"] == 8


def test_the_tar_holds_the_samples_and_the_table_finds_them(tmp_path: Path) -> None:
    commit(fill(tmp_path, SAMPLES))
    with tarfile.open(tmp_path / "000000003.tar") as archive:
        assert archive.getnames() == ["p-000000000007.json", "p-000000000008.json"]
    tar = (tmp_path / "000000003.tar").read_bytes()
    table = pq.read_table(tmp_path / "000000003.samples.parquet")
    assert table.column_names == list(SAMPLES_COLUMNS)
    for found, data in zip(table.to_pylist(), SAMPLES.values(), strict=True):
        assert tar[found["offset"] : found["offset"] + found["size"]] == data
        assert (found["source_file"], found["source_record"]) == ("docs.jsonl", 7)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        commit(fill(tmp_path / name, SAMPLES))
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("num_rows", [0, 1, 5])
def test_the_table_is_the_one_that_arrow_writes_of_the_rows(num_rows: int) -> None:
    place = {"key": "k", "offset": 512, "source_file": "f", "source_member": "", "source_record": 7}
    rows = [place | row(b"x" * n) | {"margin": [0.5, None][: n % 3]} for n in range(num_rows)]
    types = {"int32": pa.int32(), "int64": pa.int64(), "double": pa.float64()}
    types |= {"string": pa.string(), "bool": pa.bool_()}
    types |= {f"list<{name}>": pa.list_(plain) for name, plain in types.items()}
    schema = pa.schema([(name, types[kind]) for name, (kind, _) in SAMPLES_COLUMNS.items()])
    expected = pa.Table.from_pylist(rows, schema=schema)
    sink = io.BytesIO()
    pq.write_table(expected, sink, compression="zstd", row_group_size=max(num_rows, 1))
    assert samples_table(rows) == sink.getvalue()


def test_a_run_that_lost_its_lease_commits_nothing(tmp_path: Path) -> None:
    with pytest.raises(LeaseLostError, match="another run has taken over; nothing is lost"):
        commit(fill(tmp_path, SAMPLES), may=False)
    assert list(tmp_path.iterdir()) == []


def test_the_sidecar_comes_last_and_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written anew, a shard is without its sidecar as long as its other files may not fit it."""
    commit(fill(tmp_path, SAMPLES))
    replace, seen = os.replace, []

    def watch(source: str, target: str) -> None:
        seen.append((os.path.basename(target), (tmp_path / "000000003.json").exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    commit(fill(tmp_path, {7: b"{}"}))
    assert seen[-1] == ("000000003.json", False)
    assert len(seen) == 4
    assert not any(there for _, there in seen)


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_a_crash_between_any_two_steps_leaves_no_valid_looking_shard(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(fill(tmp_path, SAMPLES))
    replace, count = os.replace, []

    def fail(source: str, target: str) -> None:
        count.append(target)
        if len(count) > fails_at:
            raise OSError("the machine stops here")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="stops here"):
        commit(fill(tmp_path, {7: b"{}"}))
    assert not (tmp_path / "000000003.json").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_table_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(module, "samples_table", fail)
    with pytest.raises(MemoryError):
        commit(fill(tmp_path, SAMPLES))
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_samples_is_an_empty_tar_and_an_empty_table(tmp_path: Path) -> None:
    commit(ShardWriter(str(tmp_path), 0))
    assert (tmp_path / "000000000.tar").read_bytes() == bytes(1024)
    with tarfile.open(tmp_path / "000000000.tar") as archive:
        assert archive.getnames() == []
    assert pq.read_table(tmp_path / "000000000.samples.parquet").num_rows == 0


def test_the_table_holds_lists_and_their_gaps() -> None:
    place = {"key": "k", "offset": 512, "source_file": "", "source_member": "", "source_record": 0}
    data = samples_table([place | row(b"x")])
    assert data == samples_table([place | row(b"x")])
    import pyarrow as pa

    found = pq.read_table(pa.BufferReader(data)).to_pylist()
    assert found[0]["margin"] == [None]
    assert found[0]["similarity"] == [0.25]


def test_members_of_one_sample_stand_together(tmp_path: Path) -> None:
    writer = ShardWriter(str(tmp_path), 3)
    members = [("jpg", [b"pic", b"ture"]), ("txt", [b"text"]), ("json", [b"{}"])]
    for ordinal in (0, 1):
        writer.add_members(ordinal, SPAN, members, row(b"picture"))
    writer.tally.documents = writer.tally.images = 2
    sidecar = writer.commit(
        kind="laion",
        fingerprint="f",
        first_ordinal=0,
        source=[SPAN],
        may_commit=lambda: True,
        layout="pairs",
    )
    assert sidecar.layout == "pairs"
    with tarfile.open(tmp_path / "000000003.tar") as archive:
        assert archive.getnames() == [
            f"{k:012d}.{ending}" for k in (0, 1) for ending in ("jpg", "txt", "json")
        ]
    offsets = pq.read_table(tmp_path / "000000003.samples.parquet").column("offset").to_pylist()
    data = (tmp_path / "000000003.tar").read_bytes()
    assert [data[offset : offset + 7] for offset in offsets] == [b"picture"] * 2


def test_what_is_attached_appears_with_the_shard_or_not_at_all(tmp_path: Path) -> None:
    writer = fill(tmp_path, SAMPLES)
    writer.attach(".outcomes.parquet").write(b"told")
    with pytest.raises(LeaseLostError):
        commit(writer, may=False)
    assert list(tmp_path.iterdir()) == []
    writer = fill(tmp_path, SAMPLES)
    writer.attach(".outcomes.parquet").write(b"told")
    commit(writer)
    assert (tmp_path / "000000003.outcomes.parquet").read_bytes() == b"told"
    writer = fill(tmp_path, SAMPLES)
    writer.attach(".outcomes.parquet").write(b"other")
    writer.discard()
    assert (tmp_path / "000000003.outcomes.parquet").read_bytes() == b"told"
