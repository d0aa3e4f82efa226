"""Energon's index, against what `energon prepare` makes of the same tar."""

import io
import struct
import tarfile
from pathlib import Path

import pytest
import yaml

from mmdata.errors import BadInputError
from mmdata.shards.energon import encode_offsets, write_meta, write_tar_index
from tests.shard_factory import flip, make_tar


def index_of(tar: Path) -> list[int]:
    raw = tar.with_suffix(".tar.idx").read_bytes()
    return list(struct.unpack(f"<{len(raw) // 8}Q", raw))


def by_tarfile(tar: Path) -> list[int]:
    """The offsets as Energon takes them from tarfile, for samples of one member."""
    with tarfile.open(tar) as opened:
        members = [member for member in opened if member.isreg()]
        return [member.offset for member in members] + [opened.offset]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_headers_of_any_dialect(tmp_path: Path, form: int) -> None:
    long = "x" * 120
    tar = tmp_path / "0.tar"
    names = ["a", "b" if form == tarfile.USTAR_FORMAT else long, "c"]
    tar.write_bytes(make_tar([(f"{n}.json", b"{}" * 300) for n in names], format=form))
    assert write_tar_index(str(tar)) == 3
    assert index_of(tar) == by_tarfile(tar)


def test_members_of_one_sample_and_what_is_none(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    names = ["a.jpg", "a.txt", "README", "b.jpg", "b.txt", "__meta__/x.json"]
    tar.write_bytes(make_tar([(name, b"1") for name in names]))
    assert write_tar_index(str(tar)) == 2
    assert index_of(tar) == [0, 3 * 1024, 6 * 1024]


def test_folders_between_members(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name in ("a.json", "d/", "d/b.json"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info)
    (tmp_path / "0.tar").write_bytes(sink.getvalue())
    write_tar_index(str(tmp_path / "0.tar"))
    assert index_of(tmp_path / "0.tar") == [0, 1024, 1536]


def test_a_tar_without_samples(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(bytes(1024))
    assert write_tar_index(str(tmp_path / "0.tar")) == 0
    assert index_of(tmp_path / "0.tar") == [0]


def test_damage_is_refused(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    tar.write_bytes(make_tar([("a.json", b"{}")]))
    flip(tar, 100)
    with pytest.raises(BadInputError, match="damaged at byte 0"):
        write_tar_index(str(tar))
    assert not tar.with_suffix(".tar.idx").exists()


def test_offsets_are_little_endian() -> None:
    assert encode_offsets([0, 258]) == bytes(8) + b"\x02\x01" + bytes(6)


def test_meta_leaves_out_empty_shards_and_keeps_a_dataset_yaml(tmp_path: Path) -> None:
    write_meta(str(tmp_path), {"a.tar": 2, "b.tar": 0, "c d.tar": 1})
    meta = tmp_path / ".nv-meta"
    assert yaml.safe_load((meta / "split.yaml").read_text()) == {
        "split_parts": {"train": ["a.tar", "c d.tar"]},
        "exclude": [],
    }
    (meta / "dataset.yaml").write_text("mine")
    write_meta(str(tmp_path), {})
    assert (meta / "dataset.yaml").read_text() == "mine"
    assert yaml.safe_load((meta / "split.yaml").read_text())["split_parts"] == {"train": []}
