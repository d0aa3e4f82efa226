"""What holds records is told by looking, and its records come out the same, whatever it is."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.errors import BadInputError
from mmdata.sources import containers
from mmdata.sources.containers import find_segments
from mmdata.sources.records import Overlong, read_records
from tests.corpus import lines, pack

RECORDS = [{"id": number, "text": f'é "{number}", [\\]'} for number in range(7)]


def records(path: Path, limit: int = 1 << 20) -> list[Any]:
    return [
        record if isinstance(record, Overlong) else json.loads(record)
        for segment in find_segments(str(path))
        for record in read_records(segment, limit)
    ]


@pytest.mark.parametrize("packed", ["", ".gz", ".zst", ".zip"])
@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("array", [True, False])
def test_an_array_and_lines_under_any_name(
    packed: str, ending: str, array: bool, tmp_path: Path
) -> None:
    data = json.dumps(RECORDS, indent=1).encode() if array else lines(RECORDS)
    path = pack(tmp_path / f"data{ending}{packed}", data)
    assert records(path) == RECORDS


def test_a_large_array_is_cut_into_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "RANGE_BYTES", 60)
    path = pack(tmp_path / "data.json", json.dumps(RECORDS).encode())
    segments = find_segments(str(path))
    assert len(segments) > 2
    assert all(segment.start and segment.end for segment in segments)
    assert records(path) == RECORDS


def test_parquet_comes_by_row_group_with_bytes_as_base64(tmp_path: Path) -> None:
    rows = [
        {"texts": [f"t{n}", None], "images": [None, {"bytes": b"\x00\xff", "path": "a.jpg"}]}
        for n in range(5)
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    assert [segment.start for segment in find_segments(str(path))] == [0, 1, 2]
    found = records(path)
    assert [row["texts"][0] for row in found] == [f"t{n}" for n in range(5)]
    assert found[0]["images"] == [None, {"bytes": "AP8=", "path": "a.jpg"}]
    assert records(path, limit=40) == [Overlong(len(json.dumps(row, separators=(",", ":"))))
                                       for row in found]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.json", b"", "the file is empty; fetch it again"),
        ("a.json", b'"hello"', "expected an array of records, one record a line, or parquet"),
        ("a.json", b'{\n "data": [\n  {}\n ]\n}', "is one JSON object over several lines"),
        ("a.json", "[{}]".encode("utf-16"), "is UTF-16; make it UTF-8"),
        ("a.parquet", b"PAR1 and no more", "damaged parquet file"),
        ("a.parquet", b"[]", "is not a parquet file"),
        ("a.json.gz", b"[]", "is not a .gz file; it looks like plain JSON"),
    ],
)
def test_what_holds_no_records_is_refused(
    name: str, data: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=problem):
        records(path)


def test_a_broken_first_line_costs_itself_only(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.jsonl", b'{"id": 1, "te\n' + lines(RECORDS))
    segments = find_segments(str(path))
    assert len(list(read_records(segments[0], 1 << 20))) == 8


def test_damage_in_compressed_data_is_found(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.json.gz", json.dumps(RECORDS * 1000).encode())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInputError, match="damaged"):
        records(path)


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": [str(n) * 50 for n in range(500)]}), path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[40:400] = b"\xff" * 360
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=r"rows\.parquet: damaged parquet file"):
        records(path)
