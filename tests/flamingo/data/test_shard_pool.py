"""Many shards at hand at the price of their indexes: files come and go, samples are not kept."""

import os
from pathlib import Path

import pytest

from flamingo.data.shard_pool import ShardPool
from mmdata.catalogue.shards import catalogue_stream
from mmdata.errors import BadInputError
from mmdata.training_view.records import UnusableError
from tests.shard_factory import Dataset, make_tar


def pool_of(*specs: object, **changes: int) -> ShardPool:
    catalogue = catalogue_stream("s", [str(spec) for spec in specs])
    return ShardPool(catalogue.shards, **({"most_indexes": 64} | changes))  # type: ignore[arg-type]


def private_bytes() -> int:
    """Memory of this process that is nobody else's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def test_few_files_serve_many_shards(pages: Dataset) -> None:
    with pool_of(pages.folder, most_open=2, most_indexes=2) as pool:
        before = len(os.listdir("/proc/self/fd"))
        for ordinal in range(7):
            for shard in (0, 1, 3, 4, 5):
                found = pool.read(shard, ordinal)
                assert found.key == pages.keys(shard)[ordinal]
                assert bytes(found.members["json"][:1]) == b"{"
        assert len(os.listdir("/proc/self/fd")) - before <= 2
        assert pool.opened == {0, 1, 3, 4, 5}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells")
def test_what_was_read_is_not_kept(tmp_path: Path) -> None:
    """Neither mapped, nor in memory when the sample is gone."""
    path = tmp_path / "big.tar"
    path.write_bytes(make_tar([(f"{n}.json", os.urandom(2**22)) for n in range(16)]))
    with pool_of(path) as pool:
        pool.read(0, 0)
        before = private_bytes()
        for ordinal in range(16):
            assert len(pool.read(0, ordinal).members["json"]) == 2**22
        assert private_bytes() - before < 2**24
        assert str(path) not in Path("/proc/self/maps").read_text()


def test_what_training_does_not_look_at_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tar"
    path.write_bytes(make_tar([("a.jpg", b"1"), ("a.txt", b"2"), ("a.seg.npy", b"3")]))
    with pool_of(path) as pool:
        assert {name: bytes(data) for name, data in pool.read(0, 0).members.items()} == {
            "jpg": b"1",
            "txt": b"2",
        }


def test_a_sample_stays_good_when_its_file_is_closed(pages: Dataset) -> None:
    with pool_of(pages.folder, most_open=1) as pool:
        view = pool.read(0, 0).members["json"]
        text = bytes(view)
        pool.read(1, 0)
        assert bytes(view) == text


def test_a_shard_that_is_cut_while_it_is_open_is_damaged_there(pages: Dataset) -> None:
    """A map of it would end the process with SIGBUS."""
    with pool_of(pages.folder) as pool:
        first = pool.read(0, 0).members["json"]
        os.truncate(pages.path(0), 0)
        assert bytes(first[:1]) == b"{"
        with pytest.raises(UnusableError, match="damaged"):
            pool.read(0, 1)


def test_a_shard_that_was_cut_is_damaged_where_it_is_cut(pages: Dataset) -> None:
    pool = pool_of(pages.folder)
    os.truncate(pages.path(0), pages.read_samples(0)[6]["offset"])
    with pool:
        assert pool.read(0, 5).key == "000000000005"
        with pytest.raises(UnusableError, match="damaged"):
            pool.read(0, 6)


def test_a_shard_that_is_gone_is_named(pages: Dataset) -> None:
    pool = pool_of(pages.folder)
    pages.path(3).unlink()
    with pool, pytest.raises(BadInputError, match=r"000000003\.tar: No such file"):
        pool.read(3, 0)
