"""Records of a file are the same however it is packed, cut and read; damage is always an error."""

import gzip
import json
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.errors import BadInputError
from mmdata.sources import records as module
from mmdata.sources.records import Overlong, Segment, list_segments, read_records
from tests.corpus import pack

LIMIT = 10_000
reusing_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

Records = list[bytes | Overlong]


def read(path: Path, limit: int = LIMIT) -> Records:
    return [
        record for segment in list_segments(str(path)) for record in read_records(segment, limit)
    ]


def expected(data: bytes, limit: int = LIMIT) -> Records:
    """The definition, with all of the data in memory."""
    found: Records = []
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if len(line) > limit:
            found.append(Overlong(len(line)))
        elif line.strip():
            found.append(line.removesuffix(b"\r"))
    return found


pieces = st.sampled_from(
    [b"\n", b"\n", b"\r\n", b"{}", b'{"a": 1}', b" ", b"\t", b"\r", b"x" * 40, b"\xef\xbb\xbf",
     "\u2028\u0085".encode(), b"\x0b", b"\x00", b"[", b'"']
)  # fmt: skip
contents = st.lists(pieces, max_size=30).map(b"".join)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zip", "jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'\xef\xbb\xbf{"a":1}\n', [b'{"a":1}']),
        (b"\n \t\n{}\n\r\n\n[]", [b"{}", b"[]"]),
        (b"\xef\xbb\xbf\n{}", [b"{}"]),
        ('"a\u2028b\u0085c"\n'.encode(), ['"a\u2028b\u0085c"'.encode()]),
        (b'{"cut": ', [b'{"cut": ']),
        (b"\n\n", []),
    ],
    ids=["lf", "crlf", "bom", "blank", "bom-blank", "separators", "no-newline", "only-blank"],
)
def test_a_record_is_a_line_that_is_not_blank(
    ending: str, data: bytes, records: list[bytes], tmp_path: Path
) -> None:
    assert read(pack(tmp_path / f"x.{ending}", data)) == records


@reusing_folder
@given(
    data=contents,
    range_bytes=st.integers(1, 50),
    limit=st.integers(1, 60),
    chunk_bytes=st.integers(1, 9),
)
def test_ranges_of_a_plain_file_give_the_records_of_one_pass(
    data: bytes, range_bytes: int, limit: int, chunk_bytes: int, tmp_path: Path
) -> None:
    """A record belongs to the range that its line starts in, wherever the cuts and reads fall."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{" + data)  # (not a magic number)
    wanted = expected(b"{" + data, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RANGE_BYTES", range_bytes)
        patch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
        segments = list_segments(str(path))
        assert len(segments) == -(-path.stat().st_size // range_bytes)
        assert read(path, limit) == wanted
    assert read(path, limit) == wanted


def test_a_range_is_read_no_further_than_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n" + b"x" * 50_000_000)
    first = Segment(str(path), "", 0, 3)
    inside = Segment(str(path), "", 1000, 2000)
    tracemalloc.start()
    assert list(read_records(first, 10**9)) == [b"{}"]
    assert list(read_records(inside, 10**9)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_a_line_beyond_the_limit_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.jsonl.gz", b"{}\n" + b"a" * 60_000_000 + b"\n[]\n")
    tracemalloc.start()
    assert read(path, 1_000_000) == [b"{}", Overlong(60_000_000), b"[]"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


def test_a_line_of_exactly_the_limit_is_a_record(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.jsonl", b"a" * 100 + b"\n" + b"b" * 101 + b"\n")
    assert read(path, 100) == [b"a" * 100, Overlong(101)]


DATA = b"".join(json.dumps({"n": n, "s": f"{n * 7919:x}" * 9}).encode() + b"\n" for n in range(300))


@pytest.mark.parametrize("ending", ["jsonl.zip", "jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_a_bad_input(ending: str, part: float, tmp_path: Path) -> None:
    path = pack(tmp_path / f"x.{ending}", DATA)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(BadInputError, match=r"x\.jsonl"):
        read(path)


@pytest.mark.parametrize("ending", ["jsonl.zip", "jsonl.gz", "jsonl.zst"])
@reusing_folder
@given(data=st.data())
def test_a_flipped_byte_is_an_error_or_changes_nothing(
    ending: str, tmp_path: Path, data: st.DataObject
) -> None:
    """Never another exception, and never records that were not there."""
    path = pack(tmp_path / f"x.{ending}", DATA)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read(path)
    except BadInputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    else:
        # zstd frames need not hold a checksum: a changed literal is JSON's to find
        assert ending == "jsonl.zst" or found == expected(DATA)


@reusing_folder
@given(
    data=st.binary(max_size=300),
    ending=st.sampled_from(["jsonl", "jsonl.zip", "jsonl.gz", "jsonl.zst"]),
)
def test_any_bytes_are_records_or_a_bad_input(data: bytes, ending: str, tmp_path: Path) -> None:
    magic = {"jsonl": b"", "jsonl.zip": b"PK\x03\x04", "jsonl.gz": b"\x1f\x8b\x08\x00",
             "jsonl.zst": b"\x28\xb5\x2f\xfd"}[ending]  # fmt: skip
    path = tmp_path / f"x.{ending}"
    for content in (data, magic + data):
        path.write_bytes(content)
        try:
            read(path)
        except BadInputError:
            continue


def test_every_member_and_every_frame_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n") + gzip.compress(b"2\n"))
    assert read(path) == [b"1", b"2"]
    path = tmp_path / "x.jsonl.zst"
    frame = pa.Codec("zstd").compress(b"1\n", asbytes=True)
    path.write_bytes(frame + frame)
    assert read(path) == [b"1", b"1"]
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("b.jsonl", "sub/a.jsonl", ".hidden.jsonl", "__MACOSX/._b.jsonl", "README"):
            archive.writestr(name, f"{name}\n")
    assert read(path) == [b"b.jsonl", b"sub/a.jsonl"]
    assert [segment.member for segment in list_segments(str(path))] == ["b.jsonl", "sub/a.jsonl"]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("x.jsonl.zip", b"", "the file is empty"),
        ("x.jsonl.gz", b"", "the file is empty"),
        ("x.jsonl.gz", b'{"a": 1}', "is not a .gz file; it looks like plain JSON: name it .jsonl"),
        ("x.jsonl.zst", b"PK\x03\x04", "is not a .zst file"),
        ("x.jsonl", b"PK\x03\x04", "is compressed: name it"),
        ("x.jsonl", b"\x1f\x8b\x08", "is compressed: name it"),
    ],
)
def test_a_name_that_lies_about_the_packing_is_said_so(
    name: str, data: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInputError, match=problem):
        list_segments(str(tmp_path / name))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.jsonl", "2")
    with pytest.raises(BadInputError, match="two members of the zip have one name"):
        list_segments(str(path))


def test_a_folder_or_a_missing_file_is_a_bad_input(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.jsonl"):
        with pytest.raises(BadInputError, match="cannot be read"):
            list_segments(str(path))


@pytest.mark.parametrize(
    "name", ["a::b.jsonl", "[x]*?.jsonl", "~x.jsonl", "file:x.jsonl", "a#b%20 é.jsonl"]
)
def test_any_local_name_is_a_name(name: str, tmp_path: Path) -> None:
    assert read(pack(tmp_path / name, b"{}\n")) == [b"{}"]
