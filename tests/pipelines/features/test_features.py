"""`mmdata features`: its files, and its actors when they fail (on a cluster: `test_cluster.py`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmdata.errors import UserError
from mmdata.shards.features import (
    FEATURES,
    FeatureWriter,
    TowerOptions,
    TowerSpec,
    read_features_header,
)
from mmdata.storage.files import size_of
from pipelines.engine import devices
from pipelines.engine.actors import ActorPool
from pipelines.features import run
from pipelines.features.options import Features
from pipelines.features.run import write_features
from tests.pipelines.clip.counting_encoder import CountingEncoder, TroubledEncoder
from tests.shard_factory import Dataset, make_document


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    rows = [[make_document(shard * 3 + n) for n in range(3)] for shard in range(3)]
    Dataset(folder, rows, "mmc4").write()  # type: ignore[arg-type]
    return folder


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.matrix
def test_what_an_actor_cannot_do_or_hangs_at_is_told_by_shard(shards: Path, tmp_path: Path) -> None:
    """One that hangs is started again, and the shard begun anew, once; others are not held up."""
    options = Features(
        shards=(str(shards),), output=str(tmp_path / "o"), actors=1, stall_timeout=5.0
    )
    report = write_features(options, TroubledEncoder)
    assert (report.exit_code, report.images) == (1, 6)
    refused, hung = sorted(report.failures)
    assert "000000000.tar: cannot" in refused
    assert "000000002.tar: no progress for 5 s (--stall-timeout), 2 times" in hung
    assert report.text().count("failed: ") == 2


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


@pytest.mark.parametrize(("gpus", "computes_on", "actors"), [(3, "cuda", 3), (0, "cpu", 8)])
def test_a_driver_without_a_gpu_has_actors_where_the_cluster_has_some(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    computes_on: str,
    actors: int,
) -> None:
    """It asks the cluster, computes on its own CPU, and gives each GPU two shards at a time."""
    loaded: list[str] = []
    pools: list[tuple[ActorPool, int]] = []

    class Encoder(CountingEncoder):
        def __init__(self, options: TowerOptions) -> None:
            loaded.append(options.device)

    def ended(*_: Any, service: ActorPool, workers: int, **__: Any) -> Iterator[Any]:
        pools.append((service, workers))
        return iter(())

    monkeypatch.setattr(devices, "_of_cluster", lambda address: gpus)
    monkeypatch.setattr(run, "run_units", ended)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    given = {"shards": (str(shards),), "output": str(tmp_path / "o"), "ray_address": "host:1"}
    write_features(Features(**given), Encoder)  # type: ignore[arg-type]
    ((pool, workers),) = pools
    assert loaded == ["cpu"]
    assert (pool.argument.device, pool.gpu, len(pool.names)) == (
        *(computes_on, computes_on == "cuda", actors),
    )
    assert workers == pool.calls_at_once == (2 * actors if gpus else actors)


def test_gpus_that_a_cluster_does_not_have_are_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_of_cluster", lambda address: 0)
    options = Features(
        shards=(str(shards),), output=str(tmp_path / "o"), ray_address="host:1", device="cuda"
    )
    with pytest.raises(UserError, match="--device cuda: Ray host:1 has no GPU; use cpu"):
        write_features(options, CountingEncoder)
