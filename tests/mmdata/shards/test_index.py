"""The index of a shard: where each sample lies, from a table, from headers, or kept from before."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import BadInputError
from mmdata.shards.index import Entry, ShardIndex, index_shard, is_member
from mmdata.shards.reader import ShardReader
from tests.shard_factory import Dataset, make_dataset, make_pairs, make_tar


def places(index: ShardIndex) -> list[tuple[str, list[Entry]]]:
    return [(index.key(n), index.entries(n)) for n in range(len(index))]


def spans(index: ShardIndex) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """The places without what proves them."""
    return [
        (key, [(one.extension, one.offset, one.size) for one in many])
        for key, many in places(index)
    ]


def test_it_says_what_the_reader_says(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "ours", shards=1)
    make_pairs(tmp_path / "pairs")
    (pairs,) = (tmp_path / "pairs").glob("*.tar")
    for path in (dataset.path(0), pairs):
        index = index_shard(str(path))
        data = path.read_bytes()
        with ShardReader(path) as reader:
            assert [index.key(n) for n in range(len(index))] == reader.keys
            for number, key in enumerate(reader.keys):
                members = {
                    one.extension: data[one.offset : one.offset + one.size]
                    for one in index.entries(number)
                }
                assert members == {k: bytes(v) for k, v in reader.read(key).members.items()}


def test_table_and_headers_agree(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, shards=1)
    path = dataset.path(0)
    from_table = index_shard(str(path))
    dataset.path(0, ".samples.parquet").unlink()
    from_headers = index_shard(str(path))
    assert spans(from_headers) == spans(from_table)
    data = path.read_bytes()
    for key, (entry,) in [*places(from_table), *places(from_headers)]:
        assert is_member(data[entry.offset - 512 : entry.offset + entry.size], key, entry)


NAMES = st.text("abcé-_0", min_size=1, max_size=12)


@given(st.lists(st.tuples(NAMES, st.sampled_from(["jpg", "txt", "json", "seg.png"]))))
def test_what_is_kept_comes_back(members: list[tuple[str, str]]) -> None:
    rows = [
        (key, Entry(ext, 512 * n, n, n.to_bytes(4, "big"))) for n, (key, ext) in enumerate(members)
    ]
    index = ShardIndex.of_members(rows)
    assert Counter((key, one) for key, many in places(index) for one in many) == Counter(rows)
    kept = ShardIndex.of_bytes(index.to_bytes(7, "v"), 7, "v")
    assert kept is not None
    assert places(kept) == places(index)
    assert ShardIndex.of_bytes(index.to_bytes(7, "v"), 8, "v") is None
    assert ShardIndex.of_bytes(index.to_bytes(7, "v"), 7, "w") is None
    assert ShardIndex.of_bytes(b"nonsense", 7, "v") is None


class TestKept:
    @pytest.fixture
    def tar(self, tmp_path: Path) -> Path:
        path = tmp_path / "foreign" / "a.tar"
        path.parent.mkdir()
        path.write_bytes(make_tar([("1.jpg", b"x"), ("1.txt", b"one"), ("2.txt", b"two")]))
        return path

    def test_beside_the_tar_and_used_again(
        self, tar: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = index_shard(str(tar))
        assert [one.name for one in tar.parent.iterdir() if one != tar] == [".a.tar.index"]

        def never(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(ShardIndex, "of_headers", never)
        assert places(index_shard(str(tar))) == places(first)

    def test_not_for_another_tar(self, tar: Path) -> None:
        index_shard(str(tar))
        tar.write_bytes(make_tar([("3.txt", b"x"), ("4.txt", b"one"), ("5.txt", b"two")]))
        os.utime(tar, ns=(0, 0))
        assert [key for key, _ in places(index_shard(str(tar)))] == ["3", "4", "5"]

    def test_in_the_callers_folder_where_that_cannot_be_written_to(
        self, tar: Path, tmp_path: Path
    ) -> None:
        (tar.parent / ".a.tar.index").mkdir()  # in the way, for root too
        index_shard(str(tar), folder=str(tmp_path / "kept"))
        assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_damaged_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([("1.txt", b"one"), ("2.txt", b"two")])[:1500])
    with pytest.raises(BadInputError, match="damaged at byte"):
        index_shard(str(path))


def test_members_of_a_sample_need_not_be_together(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([("1.txt", b"a"), ("2.txt", b"b"), ("1.jpg", b"c")]))
    index = index_shard(str(path))
    assert [entry.extension for entry in index.entries(0)] == ["txt", "jpg"]


def test_an_empty_shard(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, [[]])
    dataset.write()
    assert len(index_shard(str(dataset.path(0)))) == 0
