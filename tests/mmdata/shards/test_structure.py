"""The block walker: what it lets pass, what it finds, and where it goes on after damage."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.shards.structure import Damage, Fault, Member, walk
from mmdata.shards.tar import END_MARK, member_header, padding
from mmdata.storage.files import open_buffer
from tests.shard_factory import make_tar

MEMBERS = [("a.json", b"x" * 700), ("b.json", b"y" * 512), ("c.json", b""), ("d.json", b"z")]


def ours(members: list[tuple[str, bytes]]) -> bytes:
    parts = [member_header(name, len(data)) + data + padding(len(data)) for name, data in members]
    return b"".join(parts) + END_MARK


SHARD = ours(MEMBERS)
HEADERS = [0, 1536, 2560, 3072]
FOREIGN = {
    "ustar": make_tar(MEMBERS),
    "gnu": make_tar(MEMBERS, format=tarfile.GNU_FORMAT),
    "pax": make_tar(MEMBERS, format=tarfile.PAX_FORMAT),
}


def examine(data: bytes, *, strict: bool = False) -> tuple[list[Member], list[Fault]]:
    faults: list[Fault] = []
    return list(walk(data, faults.append, ours=strict)), faults


def kinds(data: bytes, *, strict: bool = False) -> list[Damage]:
    return [fault.damage for fault in examine(data, strict=strict)[1]]


def tar_of(*infos: tarfile.TarInfo, **options: object) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return sink.getvalue()


class TestSound:
    def test_our_shard_has_no_faults_and_all_members(self) -> None:
        members, faults = examine(SHARD, strict=True)
        assert faults == []
        assert members == [
            Member("a.json", 512, 700),
            Member("b.json", 2048, 512),
            Member("c.json", 3072, 0),
            Member("d.json", 3584, 1),
        ]

    @pytest.mark.parametrize("dialect", FOREIGN)
    def test_what_tarfile_writes_passes(self, dialect: str) -> None:
        members, faults = examine(FOREIGN[dialect])
        assert faults == []
        assert [member.name for member in members] == [name for name, _ in MEMBERS]

    def test_owners_and_times_pass(self) -> None:
        info = tarfile.TarInfo("a.json")
        info.size, info.mtime, info.uid, info.gid = 10, 1700000000, 1000, 100
        info.uname, info.gname, info.mode = "bigdata", "users", 0o444
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            assert kinds(tar_of(info, format=form)) == []

    def test_pax_times_as_webdataset_writes_them_pass(self) -> None:
        info = tarfile.TarInfo("a.json")
        info.size, info.mtime = 10, 1700000000.25  # type: ignore[assignment]
        members, faults = examine(tar_of(info, format=tarfile.PAX_FORMAT))
        assert faults == []
        assert [member.name for member in members] == ["a.json"]

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_are_taken_up(self, form: int) -> None:
        name = "k" * 150 + ".json"
        members, faults = examine(make_tar([(name, b"1")], format=form))
        assert faults == []
        assert members[0].name == name

    def test_a_name_in_ustars_prefix_is_put_together(self) -> None:
        name = "d" * 90 + "/" + "k" * 90 + ".json"
        assert examine(make_tar([(name, b"1")]))[0][0].name == name

    def test_ids_too_large_for_octal_pass(self) -> None:
        info = tarfile.TarInfo("a.json")
        info.uid = 2**40
        assert kinds(tar_of(info, format=tarfile.GNU_FORMAT)) == []

    def test_directories_and_links_are_named_and_skipped(self) -> None:
        folder, link = tarfile.TarInfo("d/"), tarfile.TarInfo("l.jpg")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        members, faults = examine(tar_of(folder, link, tarfile.TarInfo("a.json")))
        assert [member.name for member in members] == ["a.json"]
        assert [fault.got for fault in faults] == ["directory", "symbolic link"]

    def test_no_members_are_no_fault(self) -> None:
        assert examine(END_MARK, strict=True) == ([], [])
        assert examine(bytes(10240)) == ([], [])


class TestHeaders:
    @settings(max_examples=300, deadline=None)
    @given(
        header=st.sampled_from(HEADERS),
        at=st.integers(0, 511),
        byte=st.integers(1, 255),
        strict=st.booleans(),
    )
    def test_any_changed_byte_of_any_header_is_found(
        self, header: int, at: int, byte: int, strict: bool
    ) -> None:
        damaged = bytearray(SHARD)
        damaged[header + at] ^= byte
        assert Damage.HEADER in kinds(bytes(damaged), strict=strict)

    @settings(max_examples=300, deadline=None)
    @given(
        dialect=st.sampled_from(sorted(FOREIGN)), at=st.integers(0, 511), byte=st.integers(1, 255)
    )
    def test_also_in_the_dialects_of_others(self, dialect: str, at: int, byte: int) -> None:
        damaged = bytearray(FOREIGN[dialect])
        damaged[1536 + at] ^= byte
        assert Damage.HEADER in kinds(bytes(damaged))

    def test_every_byte_of_the_checksum_field_counts(self) -> None:
        for at in range(148, 156):
            for byte in range(1, 256):
                damaged = bytearray(SHARD)
                damaged[1536 + at] ^= byte
                assert Damage.HEADER in kinds(bytes(damaged))

    def test_swapped_bytes_with_the_same_sum_are_found_in_fields_of_known_form(self) -> None:
        damaged = bytearray(SHARD)
        damaged[1536 + 104], damaged[1536 + 107] = damaged[1536 + 107], damaged[1536 + 104]
        assert Damage.HEADER in kinds(bytes(damaged))

    def test_the_fault_says_which_field_and_what(self) -> None:
        damaged = bytearray(SHARD)
        damaged[1536 + 330] = 0x41
        _, faults = examine(bytes(damaged))
        assert faults[0].offset == 1536
        assert faults[0].name == "b.json"
        assert faults[0].expected.startswith("checksum b'00")
        assert "at byte 1684" in faults[0].expected

    def test_the_walk_goes_on_and_says_what_others_lose(self) -> None:
        damaged = bytearray(SHARD)
        damaged[1536 + 150] ^= 1  # checksum: the size still leads on
        members, faults = examine(bytes(damaged))
        assert [member.name for member in members] == ["a.json", "b.json", "c.json", "d.json"]
        assert [fault.damage for fault in faults] == [Damage.HEADER, Damage.LOST]
        assert faults[1].got == (
            "3 samples (3 members) from byte 1536 on are not seen by readers that stop at the "
            "damage"
        )
        with tarfile.open(fileobj=io.BytesIO(bytes(damaged))) as tar:
            assert tar.getnames() == ["a.json"]

    def test_a_damaged_size_is_resynchronised(self) -> None:
        damaged = bytearray(SHARD)
        damaged[1536 + 130] ^= 1
        members, faults = examine(bytes(damaged))
        assert [member.name for member in members] == ["a.json", "c.json", "d.json"]
        assert faults[-1].got.startswith("3 samples (3 members)")

    def test_an_overwritten_block_is_resynchronised(self) -> None:
        damaged = SHARD[:1536] + b"\xff" * 512 + SHARD[2048:]
        members, _ = examine(damaged)
        assert [member.name for member in members] == ["a.json", "c.json", "d.json"]

    def test_another_dialect_in_a_shard_of_ours_is_a_fault(self) -> None:
        info = tarfile.TarInfo("a.json")
        info.mtime = 1
        assert kinds(tar_of(info, format=tarfile.USTAR_FORMAT), strict=True) == [
            Damage.NOT_OURS,
            Damage.TRAILING,
        ]

    def test_pax_records_that_do_not_add_up(self) -> None:
        info = tarfile.TarInfo("ä" * 5 + ".json")
        data = tar_of(info, format=tarfile.PAX_FORMAT)
        assert kinds(data) == []
        assert kinds(data.replace(b" path=", b"xpath=")) == [Damage.EXTENDED]


class TestEnds:
    @settings(max_examples=300, deadline=None)
    @given(length=st.integers(0, len(SHARD) - 1), strict=st.booleans())
    def test_a_cut_anywhere_is_found(self, length: int, strict: bool) -> None:
        assert kinds(SHARD[:length], strict=strict) != []

    @pytest.mark.parametrize("boundary", [*HEADERS[1:], len(SHARD) - 1024])
    def test_a_cut_at_a_member_boundary_lacks_the_end_mark(self, boundary: int) -> None:
        assert kinds(SHARD[:boundary]) == [Damage.END_MARK]

    def test_half_an_end_mark(self) -> None:
        _, faults = examine(SHARD[:-512])
        assert faults[0].damage == Damage.END_MARK
        assert faults[0].expected == "two zero blocks (1024 bytes) at the end"
        assert faults[0].got == "512 bytes left in the file"

    def test_a_cut_member_is_not_handed_out(self) -> None:
        members, faults = examine(SHARD[:2048])
        assert [member.name for member in members] == ["a.json"]
        assert faults[0].got == "the file ends after 0 of them"

    @settings(max_examples=50, deadline=None)
    @given(tail=st.binary(min_size=1, max_size=3000))
    def test_bytes_behind_the_end_are_found(self, tail: bytes) -> None:
        assert Damage.TRAILING in kinds(SHARD + tail, strict=True)

    def test_zeros_up_to_tarfiles_record_are_no_fault_but_in_ours(self) -> None:
        filled = SHARD.ljust(10240, b"\0")
        assert kinds(filled) == []
        assert kinds(filled, strict=True) == [Damage.TRAILING]
        assert kinds(SHARD.ljust(20480, b"\0")) == [Damage.TRAILING]
        assert kinds(SHARD.ljust(10239, b"\0")) == [Damage.TRAILING]

    def test_a_tar_behind_a_tar_is_counted_as_lost(self) -> None:
        _, faults = examine(SHARD + SHARD)
        assert [fault.damage for fault in faults] == [Damage.TRAILING, Damage.LOST]
        assert faults[1].got.startswith("4 samples (4 members)")

    @pytest.mark.parametrize("at", [1212, 1535])
    def test_padding_that_is_not_zero(self, at: int) -> None:
        damaged = bytearray(SHARD)
        damaged[at] = 7
        _, faults = examine(bytes(damaged))
        assert [fault.damage for fault in faults] == [Damage.PADDING]
        assert faults[0].got == f"0x07 at byte {at}"


class TestNotTars:
    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "e.tar").touch()
        with open_buffer(str(tmp_path / "e.tar")) as data:
            assert kinds(bytes(data)) == [Damage.EMPTY_FILE]

    @pytest.mark.parametrize("data", [b"hello" * 300, b"x", b"\xff" * 512])
    def test_something_else(self, data: bytes) -> None:
        assert kinds(data) == [Damage.NOT_A_TAR]

    def test_a_compressed_tar_is_named(self) -> None:
        _, faults = examine(b"\x1f\x8b" + bytes(range(256)) * 8)
        assert faults[0].got == "gzip-compressed data: unpack it first"

    @settings(max_examples=100, deadline=None)
    @given(data=st.binary(max_size=4000))
    def test_no_bytes_make_it_raise(self, data: bytes) -> None:
        examine(data)

    @settings(max_examples=100, deadline=None)
    @given(
        changes=st.lists(st.tuples(st.integers(0, len(SHARD) - 1), st.integers(0, 255)), max_size=8)
    )
    def test_no_damage_makes_it_raise(self, changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(FOREIGN["pax"])
        for at, byte in changes:
            damaged[at] = byte
        examine(bytes(damaged))
