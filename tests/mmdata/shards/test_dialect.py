"""Headers of other writers: taken apart, written again, compared."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shards.dialect import is_header, parse_number, parse_pax, read_header
from mmdata.shards.tar import member_header


def block(**fields: object) -> bytes:
    info = tarfile.TarInfo("a.json")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.USTAR_FORMAT)


@given(
    st.text("abc0123456789_-.", min_size=1, max_size=100),
    st.integers(0, 8**11 - 1),
)
def test_ours_are_read_back(name: str, size: int) -> None:
    header = read_header(member_header(name, size))
    assert (header.name, header.size, header.kind) == (name.encode(), size, b"0")
    assert header.difference is None
    assert header.summed


@given(
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**20),
    mtime=st.integers(0, 2**32),
    uname=st.text("abcdef", max_size=31),
)
def test_any_plain_header_of_tarfile_is_what_its_fields_make(**fields: object) -> None:
    assert read_header(block(**fields)).difference is None


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"0000644\0", 0o644),
        (b"000644 \0", 0o644),
        (b"   644 \0", 0o644),
        (b"\0" * 8, 0),
        (b"\x80" + bytes(6) + b"\x05", 5),
        (b"0000688\0", None),
        (b"-000001\0", None),
        (b"\xff" * 8, None),
    ],
)
def test_numbers(field: bytes, number: int | None) -> None:
    assert parse_number(field) == number


def test_the_first_field_that_differs_is_named_with_both_values() -> None:
    raw = bytearray(block(uname="root"))
    raw[265 + 10] = 0x41  # behind the name's end: no reader looks there
    raw[148:156] = b"%06o\0 " % (sum(raw) - sum(raw[148:156]) + 256)
    header = read_header(bytes(raw))
    assert header.summed
    assert header.difference is not None
    assert header.difference.field == "uname"
    assert header.difference.offset == 265


@pytest.mark.parametrize("devices", [b"\0" * 16, b"0000000\0" * 2])
def test_the_time_before_ustar(devices: bytes) -> None:
    raw = bytearray(block())
    raw[257:265], raw[329:345], raw[148:156] = bytes(8), devices, b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    header = read_header(bytes(raw))
    assert (header.name, header.summed, header.difference) == (b"a.json", True, None)


def test_pax_records() -> None:
    assert parse_pax(b"12 path=abc\n11 mtime=1\n") == {"path": b"abc", "mtime": b"1"}
    assert parse_pax(b"") == {}
    for broken in (b"13 path=abc\n", b"12 path=abc", b"x path=abc\n", b"12path=abcd\n", b"0 a=b\n"):
        assert parse_pax(broken) is None


def test_a_header_to_resynchronise_at_needs_magic_and_sum() -> None:
    good = member_header("a.json", 5)
    assert is_header(good)
    assert not is_header(good[:-1])
    assert not is_header(bytes(512))
    assert not is_header(good[:10] + b"x" + good[11:])
