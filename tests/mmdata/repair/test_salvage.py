"""What a damaged tar still holds, with and without the samples table that stood beside it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.repair.found import Found
from mmdata.repair.salvage import assign_keys, layout_of, salvage
from mmdata.shards.tar import END_MARK, member_header, padding
from tests.shard_factory import encode, make_dataset, make_document, make_image, make_tar

DOCUMENTS = [encode(make_document(number)) for number in range(3)]
NAMES = [f"{number:012d}.json" for number in range(3)]


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    parts = [member_header(n, len(data)) + data + padding(len(data)) for n, data in members]
    return b"".join(parts) + END_MARK


TAR = tar_of(list(zip(NAMES, DOCUMENTS, strict=True)))
STARTS = [TAR.index(document) for document in DOCUMENTS]


def damaged(*offsets: int) -> bytes:
    data = bytearray(TAR)
    for offset in offsets:
        data[offset] ^= 1
    return bytes(data)


def documents(data: bytes, found: list[Found]) -> list[bytes]:
    return [
        data[offset : offset + size] for item in found for offset, size in item.members.values()
    ]


def rows() -> list[dict[str, Any]]:
    from tests.shard_factory import sha256

    return [
        {
            "key": name.removesuffix(".json"),
            "offset": start,
            "size": len(document),
            "sha256": sha256(document),
        }
        for name, start, document in zip(NAMES, STARTS, DOCUMENTS, strict=True)
    ]


def test_a_sound_tar_is_what_it_is() -> None:
    found = salvage(TAR, "interleaved")
    assert documents(TAR, found) == DOCUMENTS
    assert [item.key for item in found] == [name.removesuffix(".json") for name in NAMES]
    assert not any(item.notes or item.lost for item in found)


@pytest.mark.parametrize("with_table", [False, True])
@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, 511), sample=st.integers(0, 2), bit=st.integers(0, 7))
def test_any_flip_in_a_header_costs_nothing(
    with_table: bool, offset: int, sample: int, bit: int
) -> None:
    data = bytearray(TAR)
    data[STARTS[sample] - 512 + offset] ^= 1 << bit
    found = salvage(bytes(data), "interleaved", rows() if with_table else None)
    assert documents(bytes(data), found) == DOCUMENTS
    assert all(item.lost is None for item in found)
    noted = [item.notes[0][0] for item in found if item.notes]
    assert "header-mended" in noted or "renamed" in noted


def test_two_headers_in_a_row(tmp_path: Path) -> None:
    data = bytearray(TAR)
    for sample in (0, 1):
        start = STARTS[sample] - 512
        data[start : start + 512] = b"\x55" * 512
    found = salvage(bytes(data), "interleaved")
    assert documents(bytes(data), found) == DOCUMENTS
    assert [item.key for item in found[2:]] == ["000000000002"]


def test_a_header_and_the_start_of_its_document_are_gone() -> None:
    data = bytearray(TAR)
    data[STARTS[1] - 512 : STARTS[1] + 600] = b"\x55" * 1112
    found = salvage(bytes(data), "interleaved")
    assert documents(bytes(data), found) == [DOCUMENTS[0], DOCUMENTS[2]]
    assert [item.lost is not None for item in found] == [False, True, False]
    assert found[1].lost is not None
    assert "cannot be told apart" in found[1].lost[1]


def test_a_cut_names_what_the_table_knows() -> None:
    data = TAR[: STARTS[1] + 100]
    found = salvage(data, "interleaved", rows())
    assert documents(data, found) == DOCUMENTS[:1]
    lost = {item.key: item.lost for item in found if item.lost}
    assert list(lost) == ["000000000001", "000000000002"]
    assert lost["000000000002"] == (
        "lost",
        f"expected {len(DOCUMENTS[2])} bytes, the file ends after 0 of them",
    )


def test_a_cut_without_a_table_names_the_member_that_is_cut() -> None:
    found = salvage(TAR[: STARTS[1] + 100], "interleaved")
    assert [item.key for item in found if item.lost] == ["000000000001"]


def test_a_table_of_another_shard_is_not_believed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    others = dataset.read_samples(1)
    for row in others:
        row["offset"] += 3
    assert salvage(TAR, "interleaved", others) == salvage(TAR, "interleaved")


def test_samples_behind_the_end_mark() -> None:
    more = tar_of([("000000000003.json", DOCUMENTS[0])])
    data = TAR + more + more
    found = salvage(data, "interleaved")
    assert len(documents(data, found)) == 5
    assert [[note for note, _ in item.notes] for item in found[3:]] == [
        ["behind-end"],
        ["renamed", "behind-end"],  # its key is that of the one before
    ]


def test_what_is_no_sample_is_named() -> None:
    data = make_tar([("a.json", DOCUMENTS[0]), ("README", b"x"), ("b.cls", b"1")])
    found = salvage(data, "interleaved")
    assert [(item.name, item.lost[0]) for item in found if item.lost] == [
        ("README", "not-a-sample"),
        ("b.cls", "not-a-sample"),
    ]


def test_pairs_whose_members_stand_apart() -> None:
    picture = make_image(1)
    data = make_tar([("a.jpg", picture), ("b.jpg", picture), ("a.txt", b"A"), ("b.txt", b"B")])
    assert layout_of(data) == "pairs"
    found = salvage(data, "pairs")
    assert [sorted(item.members) for item in found] == [["jpg", "txt"]] * 2
    assert {note for item in found for note, _ in item.notes} == {"regrouped"}


def test_pairs_are_told_by_headers_that_nothing_leads_to() -> None:
    picture = make_image(1)
    data = make_tar([("a.jpg", picture), ("a.txt", b"A"), ("b.jpg", picture), ("b.txt", b"B")])
    json_first = make_tar([("a.json", b"{}"), ("a.jpg", picture), ("a.txt", b"A")])
    second = json_first.index(b"a.jpg")
    for damaged, keys in (
        (data[100:], ["b"]),
        (bytes(10_240) + data, ["a", "b"]),
        (json_first[:second] + bytes(512) + json_first[second:], ["a"]),
    ):
        assert layout_of(damaged) == "pairs"
        found = salvage(damaged, "pairs")
        assert [item.key for item in found if {"jpg", "txt"} <= {*item.members}] == keys
    assert layout_of(bytes(10_240) + TAR) == "interleaved"
    assert layout_of(TAR + data) == "interleaved"


def test_a_lost_member_of_a_pair_is_told_with_the_pair() -> None:
    data = bytearray(make_tar([("a.jpg", make_image(1)), ("a.txt", b"A"), ("a.json", b"{}")]))
    start = data.index(b"a.txt")
    data[start + 124 : start + 136] = b"?" * 12
    (item,) = salvage(bytes(data), "pairs")
    assert sorted(item.members) == ["jpg", "json"]
    assert [note for note, _ in item.notes] == ["member-lost"]


class TestKeys:
    @staticmethod
    def found(*keys: str) -> list[Found]:
        return [Found(0, f"{key}.json", key) for key in keys]

    def test_a_converters_keys_stay(self) -> None:
        keys = ["p-000000000004", "p-000000000009"]
        assert assign_keys(self.found(*keys)) == keys

    def test_what_is_not_known_gets_the_next_number(self) -> None:
        found = self.found("", "000000000004", "", "000000000006")
        assert assign_keys(found) == [f"{number:012d}" for number in (3, 4, 5, 6)]

    @pytest.mark.parametrize(
        "keys",
        [
            ("a",),
            ("000000000004", "000000000004"),
            ("000000000004", "000000000003"),
            ("000000000004", "", "000000000005"),
            ("a000000000001", "b000000000002"),
            ("", "000000000000"),
            ("",),
        ],
    )
    def test_others_are_numbered_anew(self, keys: tuple[str, ...]) -> None:
        assert assign_keys(self.found(*keys)) is None
