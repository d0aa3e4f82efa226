"""A folder asked about each time, and a store asked once, give the same answers."""

from pathlib import Path

import pytest

from mmdata.shards.naming import SIDECAR, shard_stem
from pipelines.conversion import output_files
from pipelines.conversion.output_files import ListedFiles, LiveFiles, look_at
from tests.object_store import ObjectStore


def fill(folder: Path, shards: int) -> None:
    for shard in range(shards):
        (folder / (shard_stem(shard) + SIDECAR)).write_bytes(b"%d" % shard)
        (folder / (shard_stem(shard) + ".tar")).write_bytes(b"x" * shard)
    (folder / "manifest.json").write_bytes(b"{}")


@pytest.mark.parametrize("kind", [LiveFiles, pytest.param(ListedFiles, marks=pytest.mark.slow)])
def test_the_answers(
    kind: type[LiveFiles] | type[ListedFiles],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output_files, "_FETCHED_AT_ONCE", 3)
    fill(tmp_path, 8)
    folder = str(tmp_path)
    if kind is ListedFiles:
        store: ObjectStore = request.getfixturevalue("object_store")
        folder = request.getfixturevalue("bucket")
        store.put_folder(tmp_path, folder)
    files = look_at(folder)
    assert isinstance(files, kind)
    for shard in (0, 7, 3, 0):
        assert files.read(shard_stem(shard) + SIDECAR) == b"%d" % shard
        assert files.size(shard_stem(shard) + ".tar") == shard
    assert files.read("manifest.json") == b"{}"
    assert files.read(shard_stem(8) + SIDECAR) is None
    assert files.size(shard_stem(8) + ".tar") is None


@pytest.mark.slow
def test_a_listing_is_of_its_moment(object_store: ObjectStore, bucket: str) -> None:
    object_store.fs.pipe_file(f"{bucket}/a", b"x")
    files = look_at(bucket)
    object_store.fs.pipe_file(f"{bucket}/b", b"x")
    assert (files.size("a"), files.size("b")) == (1, None)
