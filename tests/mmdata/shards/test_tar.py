"""Headers of our tars: byte for byte what Python's tarfile writes for a plain file."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shards.tar import END_MARK, MAX_MEMBER_BYTES, member_header, padding

names = st.text(alphabet="abcxyz0189_-.", min_size=1, max_size=100)


def reference(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


@given(names, st.integers(0, MAX_MEMBER_BYTES))
def test_a_header_is_what_tarfile_writes(name: str, size: int) -> None:
    assert member_header(name, size) == reference(name, size)


@given(st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=5))
def test_tarfile_reads_back_what_was_put_together(members: list[tuple[str, bytes]]) -> None:
    tar = b"".join(member_header(n, len(d)) + d + padding(len(d)) for n, d in members) + END_MARK
    assert len(tar) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        read = []
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            read.append((member.name, file.read()))
    assert read == members


@pytest.mark.parametrize(
    ("name", "size", "problem"),
    [
        ("", 0, "member name of 0 bytes: expected 1 to 100"),
        ("x" * 101, 0, "member name of 101 bytes: expected 1 to 100"),
        ("é", 0, "ascii"),
        ("x", 8 * 2**30, "member of 8589934592 bytes: expected at most 8589934591"),
        ("x", -1, "member of -1 bytes"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(name: str, size: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        member_header(name, size)
