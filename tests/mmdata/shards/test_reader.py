"""Samples in order and by key, with the samples table or from headers."""

import gc
from pathlib import Path

import pytest

from mmdata.errors import BadInputError
from mmdata.shards.index import index_shard
from mmdata.shards.reader import ShardReader, split_name
from tests.shard_factory import encode, flip, make_dataset, make_pairs, make_tar


def test_samples_come_in_the_order_of_the_tar(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    with ShardReader(dataset.path(1)) as reader:
        assert len(reader) == 3
        assert reader.keys == ["000000000003", "000000000004", "000000000005"]
        found = [(sample.key, bytes(sample.members["json"])) for sample in reader]
    assert found == [
        (key, encode(document))
        for key, document in zip(dataset.keys(1), dataset.documents[1], strict=True)
    ]


def test_with_and_without_the_samples_table_is_the_same(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)

    def samples() -> list[tuple[str, int, bytes]]:
        with ShardReader(dataset.path()) as reader:
            return [(s.key, s.offset, bytes(s.members["json"])) for s in reader]

    with_table = samples()
    dataset.path(0, ".samples.parquet").unlink()
    assert samples() == with_table


def test_one_sample_by_its_key(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    with ShardReader(dataset.path()) as reader:
        assert "000000000002" in reader
        assert bytes(reader.read("000000000002").members["json"]) == encode(dataset.documents[0][2])
        with pytest.raises(KeyError):
            reader.read("000000000003")


def test_the_samples_table_spares_the_other_members(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    end = dataset.path().stat().st_size
    with dataset.path().open("r+b") as file:
        file.truncate(end - 1024)  # a walk over the headers would refuse this
    with ShardReader(dataset.path()) as reader:
        assert reader.keys == dataset.keys(0)


def test_pairs_have_all_their_members(tmp_path: Path) -> None:
    with ShardReader(make_pairs(tmp_path)) as reader:
        sample = next(iter(reader))
        assert list(sample.members) == ["jpg", "txt", "json"]
        assert bytes(sample.members["txt"]) == b"caption 0"
        sample.members.clear()


def test_members_outlive_the_reader(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    reader = ShardReader(dataset.path())
    member = reader.read("000000000000").members["json"]
    reader.close()
    assert bytes(member) == encode(dataset.documents[0][0])
    del member, reader
    gc.collect()


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(make_tar([]))
    with ShardReader(tmp_path / "a.tar") as reader:
        assert list(reader) == []


def test_damage_is_an_error_and_not_a_silent_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([("a.json", b"{}"), ("b.json", b"{}")]))
    flip(path, 1024 + 150)
    with pytest.raises(BadInputError, match=r"a\.tar: damaged at byte 1024: expected checksum"):
        ShardReader(path)


def test_a_table_of_another_shard_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    rows = dataset.read_samples(0)
    rows[1]["offset"] += 512
    dataset.write_samples(0, rows)
    with pytest.raises(BadInputError, match="000000000001 is not at byte"):
        ShardReader(dataset.path())


def test_a_table_may_be_about_headers_of_any_dialect(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, shards=1)
    members = [
        (f"{key}.json", encode(document))
        for key, document in zip(dataset.keys(0), dataset.documents[0], strict=True)
    ]
    plain = make_tar(members, fill=False)
    owned = bytearray(plain)
    at = dataset.read_samples(0)[1]["offset"] - 512
    owned[at + 112] ^= 1  # the user's number, and the checksum that goes with it
    owned[at + 148 : at + 156] = b"%06o\0 " % (
        sum(owned[at : at + 148] + owned[at + 156 : at + 512]) + 256
    )
    dataset.path().write_bytes(owned)
    with ShardReader(dataset.path()) as reader:
        assert [bytes(sample.members["json"]) for sample in reader] == [raw for _, raw in members]


@pytest.mark.parametrize("second", ["a.json", "a.JSON"])
def test_two_members_of_one_name_are_no_sample(tmp_path: Path, second: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([("a.json", b"{}"), (second, b"[]"), ("b.json", b"{}")]))
    told = rf"two members are named '{second}' \(bytes 512 and 1536\)"
    with pytest.raises(BadInputError, match=told):
        ShardReader(path)
    with pytest.raises(BadInputError, match=told):
        index_shard(str(path))


def test_a_tar_without_its_end_may_have_been_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([("a.json", b"{}")])[:1024])
    for read in (ShardReader, lambda path: index_shard(str(path))):
        with pytest.raises(BadInputError, match=r"damaged at byte 1024.*may have been cut here"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"hello" * 300])
def test_no_tar_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(BadInputError, match=r"a\.tar: not a tar: expected"):
        ShardReader(tmp_path / "a.tar")
    with pytest.raises(BadInputError, match="No such file"):
        ShardReader(tmp_path / "none.tar")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.json", ("a", "json")),
        ("d/a.JPG", ("d/a", "jpg")),
        ("d.e/x.y.json", ("d.e/x", "y.json")),
        ("README", ("", "")),
        (".hidden.json", ("", "")),
        ("a.", ("", "")),
    ],
)
def test_names_split_as_webdataset_splits_them(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts
