"""Shards of a store: fetched once a host, ahead, verified, within the bound, patiently."""

import errno
import multiprocessing
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from flamingo.data.cache import ShardCache
from flamingo.data.stream import Stream
from mmdata.catalogue.shards import Shard, catalogue_stream
from mmdata.errors import BadInputError, StorageError, UserError
from mmdata.storage import urls
from mmdata.training_view.sequence import MediaTokenizer
from tests.object_store import ObjectStore
from tests.shard_factory import Dataset, make_pairs, sha256

from .conftest import config_of


@pytest.fixture
def remote(
    object_store: ObjectStore, bucket: str, pages: Dataset, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The shards of `pages`, in a store that is asked once and not eight times."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(urls, "_filesystems", {})
    object_store.put_folder(pages.folder, bucket)
    return bucket


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ShardCache]:
    with ShardCache(str(tmp_path / "cache"), 10**8, first_wait_seconds=0.05) as one:
        yield one


def shard_of(path: str, data: bytes, **changes: object) -> Shard:
    return Shard(path, 1, len(data), **({"sha256": sha256(data)} | changes))  # type: ignore[arg-type]


def pipe(path: Path, data: bytes) -> Shard:
    path.write_bytes(data)
    return shard_of(f"pipe:cat {path}", data)


def keys(stream: Stream, number: int = 8) -> list[tuple[str, ...]]:
    return [batch.keys for batch in islice(stream.batches(), number)]


class TestStreams:
    def test_of_a_store_equal_those_of_a_disk(
        self, remote: str, pages: Dataset, cache: ShardCache, tokenizer: MediaTokenizer
    ) -> None:
        there = Stream(config_of(remote), tokenizer, cache=cache)
        here = Stream(config_of(pages.folder), tokenizer)
        assert there.identity == here.identity
        assert keys(there) == keys(here)
        assert len(cache.fetched) == len(set(cache.fetched)) == 5  # the sixth is empty

    def test_ranges_manifests_and_lists_of_urls(
        self, remote: str, pages: Dataset, tmp_path: Path
    ) -> None:
        whole = catalogue_stream("s", [remote])
        assert catalogue_stream("s", [f"{remote}/{{000000000..000000005}}.tar"]) == whole
        assert catalogue_stream("s", [f"{remote}/manifest.json"]) == whole
        listed = tmp_path / "shards.txt"
        names = [f"{remote}/00000000{n}.tar" for n in range(6)]
        listed.write_text("# all\n" + "\n".join(names) + "\n\n")
        assert catalogue_stream("s", [str(listed)]) == whole
        with pytest.raises(UserError, match=r"000000006.tar: no such file; .*; and 1 more"):
            catalogue_stream("s", [f"{remote}/{{000000000..000000009}}.tar"])

    def test_without_a_cache_they_are_refused(self, remote: str, tokenizer: MediaTokenizer) -> None:
        with pytest.raises(UserError, match=r"s3://bucket/.*: give --cache-dir"):
            Stream(config_of(remote), tokenizer)

    def test_of_others_are_counted_by_fetching_them_once(
        self, object_store: ObjectStore, bucket: str, tmp_path: Path, tokenizer: MediaTokenizer
    ) -> None:
        make_pairs(tmp_path / "pairs")
        object_store.put_folder(tmp_path / "pairs", bucket)
        with ShardCache(str(tmp_path / "cache"), 10**8) as cache:
            config = config_of(bucket, batch_size=3)
            stream = Stream(config, tokenizer, cache=cache)
            assert (stream.rule, stream.num_samples) == ("caption", 3)
            again = Stream(config, tokenizer, cache=cache)
            assert keys(stream) == keys(again)
            assert len(cache.fetched) == 1

    def test_of_a_command(
        self, pages: Dataset, cache: ShardCache, tokenizer: MediaTokenizer
    ) -> None:
        spec = f"pipe:cat {pages.folder}/00000000{{0..5}}.tar"
        stream = Stream(config_of(spec), tokenizer, cache=cache)
        assert stream.num_samples == 35
        used = {key for batch in keys(stream) for key in batch}
        assert used <= {f"{number:012d}" for number in range(35)}


class TestFailures:
    def test_a_store_that_comes_back_is_waited_for(
        self, remote: str, object_store: ObjectStore, cache: ShardCache
    ) -> None:
        shard = catalogue_stream("s", [remote]).shards[0]
        object_store.door.shut()
        opener = threading.Timer(0.4, object_store.door.open)
        opener.start()
        try:
            assert len(cache.open(shard)) == shard.num_bytes
        finally:
            opener.join()

    def test_a_store_that_does_not_is_a_clear_error(
        self, remote: str, object_store: ObjectStore, tmp_path: Path
    ) -> None:
        shard = catalogue_stream("s", [remote]).shards[0]
        object_store.door.shut()
        try:
            with (
                ShardCache(
                    str(tmp_path / "c"), 10**8, attempts=3, first_wait_seconds=0.01
                ) as cache,
                pytest.raises(StorageError, match="not fetched in 3 attempts") as error,
            ):
                cache.open(shard)
        finally:
            object_store.door.open()
        assert "\n" not in str(error.value)
        assert "goes on from its last checkpoint" in str(error.value)

    def test_a_store_that_stalls_is_asked_again(
        self, remote: str, object_store: ObjectStore, tmp_path: Path
    ) -> None:
        """It takes the connection and says nothing; on its own the client would wait for ever."""
        shard = catalogue_stream("s", [remote]).shards[0]
        with ShardCache(
            str(tmp_path / "c"), 10**8, attempts=30, first_wait_seconds=1e-9, stall_seconds=0.2
        ) as cache:
            object_store.door.stall()
            opener = threading.Timer(0.6, object_store.door.flow)
            opener.start()
            try:
                assert len(cache.open(shard)) == shard.num_bytes
            finally:
                opener.join()

    def test_a_store_that_goes_on_stalling_is_a_clear_error_in_the_stated_time(
        self, remote: str, object_store: ObjectStore, tmp_path: Path
    ) -> None:
        shard = catalogue_stream("s", [remote]).shards[0]
        object_store.door.stall()
        start = time.monotonic()
        try:
            with (
                ShardCache(
                    str(tmp_path / "c"),
                    10**8,
                    attempts=3,
                    first_wait_seconds=0.05,
                    stall_seconds=0.3,
                ) as cache,
                pytest.raises(StorageError) as error,
            ):
                cache.open(shard)
        finally:
            object_store.door.flow()
        assert time.monotonic() - start >= 3 * 0.3 + 0.05 + 0.1
        assert "not fetched in 3 attempts" in str(error.value)
        assert r"no byte came for 0.3 s; the run goes on" in str(error.value)
        assert not list((tmp_path / "c").glob(".*.tmp"))

    def test_a_run_that_ends_does_not_wait_for_a_stalled_store(
        self, remote: str, object_store: ObjectStore, tmp_path: Path
    ) -> None:
        """It would be heard after an hour."""
        shards = catalogue_stream("s", [remote]).shards
        object_store.door.stall()
        try:
            with ShardCache(str(tmp_path / "c"), 10**8, stall_seconds=3600) as cache:
                cache.expect(shards)
                time.sleep(0.2)
        finally:
            object_store.door.flow()

    def test_other_bytes_than_the_manifests_are_refused(
        self, cache: ShardCache, tmp_path: Path
    ) -> None:
        shard = pipe(tmp_path / "one", b"right")
        (tmp_path / "one").write_bytes(b"wrong")
        with pytest.raises(BadInputError, match=r"expected sha256 .*, got .*; mmdata validate"):
            cache.open(shard)
        assert not list(Path(cache.folder).glob("*.tar"))

    def test_a_command_that_fails_or_stalls(self, tmp_path: Path) -> None:
        with ShardCache(
            str(tmp_path), 10**8, attempts=2, first_wait_seconds=0.01, stall_seconds=0.2
        ) as cache:
            with pytest.raises(StorageError, match="the command ended with status 7"):
                cache.open(Shard("pipe:exit 7", 1))
            with pytest.raises(StorageError, match=r"no byte came for 0\.2 s"):
                cache.open(Shard("pipe:exec sleep 3600", 1))

    def test_a_full_disk_is_not_the_stores_fault(
        self, cache: ShardCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(cache, "_copy", full)
        with pytest.raises(UserError, match="No space left on device; free some space"):
            cache.open(pipe(tmp_path / "one", b"data"))


class TestBound:
    def test_what_was_used_longest_ago_goes(self, tmp_path: Path) -> None:
        with ShardCache(str(tmp_path / "cache"), 250) as cache:
            first, second, third = (pipe(tmp_path / str(n), bytes([n]) * 100) for n in range(3))
            for shard in (first, second):
                cache.open(shard).close()
                time.sleep(0.02)
            cache.open(first).close()
            cache.open(third).close()
            assert sum(one.stat().st_size for one in (tmp_path / "cache").glob("*.tar")) == 200
            cache.open(first).close()
            assert cache.fetched == [first.path, second.path, third.path]

    def test_what_is_in_use_stays(self, tmp_path: Path) -> None:
        with ShardCache(str(tmp_path / "cache"), 250) as cache:
            shards = [pipe(tmp_path / str(n), bytes([n]) * 100) for n in range(3)]
            held = [cache.open(shard) for shard in shards[:2]]
            with pytest.raises(UserError, match="200 bytes are in use and 100 more do not fit"):
                cache.open(shards[2])
            assert held[0].read(0, 100) == bytes(100)
            held[0].close()
            assert cache.open(shards[2]).read(0, 1) == b"\x02"

    def test_what_a_killed_process_left_is_swept(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache"
        folder.mkdir()
        draft = folder / f".{'0' * 40}.tar.{'a' * 32}.tmp"
        draft.write_bytes(bytes(200))
        with ShardCache(str(folder), 250) as cache:
            cache.open(pipe(tmp_path / "one", bytes(100)))
        assert not draft.exists()

    def test_fetching_ahead_spares_the_wait(self, tmp_path: Path) -> None:
        with ShardCache(str(tmp_path / "cache"), 10**6) as cache:
            shard = pipe(tmp_path / "one", b"data")
            cache.expect([shard, Shard("local.tar", 1)])
            deadline = time.monotonic() + 300
            while not cache.fetched and time.monotonic() < deadline:
                time.sleep(0.01)
            assert cache.fetched == [shard.path]
            assert cache.open(shard).read(0, 9) == b"data"
            assert cache.fetched == [shard.path]


def _fetch_all(folder: str, shards: list[Shard], count: "multiprocessing.Queue[int]") -> None:
    with ShardCache(folder, 10**6) as cache:
        for shard in shards:
            assert len(cache.open(shard)) == 4
        count.put(len(cache.fetched))


@pytest.mark.slow
def test_the_ranks_of_a_host_fetch_each_shard_once(tmp_path: Path) -> None:
    shards = [pipe(tmp_path / str(n), b"%04d" % n) for n in range(12)]
    context = multiprocessing.get_context("forkserver")
    counts: multiprocessing.Queue[int] = context.Queue()
    ranks = [
        context.Process(target=_fetch_all, args=(str(tmp_path / "cache"), shards, counts))
        for _ in range(2)
    ]
    for rank in ranks:
        rank.start()
    fetched = [counts.get(timeout=300) for _ in ranks]
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    assert sum(fetched) == 12
