"""`mmdata features` over Ray: actors write the files that one process writes."""

from pathlib import Path

import pytest

from mmdata.errors import UserError
from mmdata.shards.features import (
    FEATURES,
    FeatureResult,
    FeatureTask,
    FeatureWriter,
    TowerOptions,
    TowerSpec,
    read_features_header,
)
from mmdata.shards.reader import ShardReader
from mmdata.storage.files import size_of
from pipelines.config import Features
from pipelines.features import write_features
from tests.shard_factory import Dataset, make_document


class CountingEncoder:
    """A tower of its own kind: a token of an image is the number of its sample."""

    spec = TowerSpec(identity="counting", num_tokens=2, width=3)

    def __init__(self, options: TowerOptions) -> None:
        self._options = options

    def encode_shard(self, task: FeatureTask) -> FeatureResult:
        if self._options.model == "broken":
            raise UserError(f"{task.shard}: cannot")
        with ShardReader(task.shard) as reader:
            samples = [(key, 2) for key in reader.keys]
        spec, size = self.spec, size_of(task.shard)
        with FeatureWriter(task.output, spec, size, samples) as writer:
            for number, _ in enumerate(samples):
                writer.add(bytes([number]) * 2 * spec.image_bytes, [True, True])
            num_bytes = writer.publish()
        return FeatureResult(images=2 * len(samples), undecodable=0, num_bytes=num_bytes)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    rows = [[make_document(shard * 3 + n) for n in range(3)] for shard in range(3)]
    Dataset(folder, rows, "mmc4").write()  # type: ignore[arg-type]
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.ray
@pytest.mark.slow
def test_actors_write_what_one_process_writes(shards: Path, tmp_path: Path) -> None:
    written = []
    for actors in (0, 2):
        output = tmp_path / str(actors)
        options = Features(shards=(str(shards),), output=str(output), actors=actors)
        report = write_features(options, CountingEncoder)
        assert (report.exit_code, report.shards, report.images) == (0, 3, 18)
        written.append(files(output))
    assert written[0] == written[1]
    assert list(written[0]) == [f"{number:09d}{FEATURES}" for number in range(3)]


@pytest.mark.ray
@pytest.mark.slow
def test_what_an_actor_cannot_do_is_told_by_shard(shards: Path, tmp_path: Path) -> None:
    options = Features(
        shards=(str(shards),), output=str(tmp_path / "o"), actors=1, vision_encoder_path="broken"
    )
    report = write_features(options, CountingEncoder)
    assert report.exit_code == 1
    assert len(report.failures) == 3
    assert "failed: " in report.text()
    assert "cannot" in report.failures[0]


def test_a_failed_shard_leaves_nothing_under_its_name(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / f"0{FEATURES}"
    with FeatureWriter(str(path), CountingEncoder.spec, 7, [("a", 2)]) as writer:
        writer.add(bytes(CountingEncoder.spec.image_bytes), [True])
    assert list(tmp_path.iterdir()) == [shards]


def test_a_file_says_what_it_is_of(tmp_path: Path) -> None:
    path, spec = str(tmp_path / f"0{FEATURES}"), CountingEncoder.spec
    with FeatureWriter(path, spec, 7, [("a", 2), ("b", 0), ("c", 1)]) as writer:
        writer.add(bytes(3 * spec.image_bytes), [True, False, True])
        assert writer.publish() == size_of(path)
    found = read_features_header(path)
    assert found.first_of == {"a": 0, "b": 2, "c": 2}
    assert found.usable.tolist() == [1, 0, 1]
    assert (found.tower, found.shard_bytes, found.shape) == ("counting", 7, (3, 2, 3))


def test_a_disk_that_is_too_small_is_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        CountingEncoder, "spec", TowerSpec(identity="vast", num_tokens=10**9, width=10**6)
    )
    options = Features(shards=(str(shards),), output=str(tmp_path / "o"), actors=0)
    with pytest.raises(UserError, match=r"expected .* GB free, got"):
        write_features(options, CountingEncoder)
    assert not (tmp_path / "o").exists()


def test_a_store_is_refused(shards: Path) -> None:
    with pytest.raises(UserError, match="features go to a disk"):
        write_features(
            Features(shards=(str(shards),), output="s3://bucket/o", actors=0), CountingEncoder
        )


def test_actors_in_this_process_have_no_cluster() -> None:
    with pytest.raises(UserError, match="leave out --ray-address"):
        Features(shards=("s",), output="o", actors=0, ray_address="host:1")
