"""A file of which only ranges are fetched reads like the whole."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdata.storage import ranges
from mmdata.storage.ranges import RangeBuffer

SPANS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=6)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and gaps of some bytes, so that a small file has many."""
    monkeypatch.setattr(ranges, "NEAR_BYTES", 8)
    monkeypatch.setattr(ranges, "BLOCK_BYTES", 32)
    monkeypatch.setattr(ranges, "_KEPT_BLOCKS", 2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(n * 7 % 251 for n in range(333)))
    return path


@given(SPANS, st.integers(0, 400), st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_slice_is_that_of_the_file(
    file: Path, spans: list[tuple[int, int]], start: int, stop: int
) -> None:
    data = file.read_bytes()
    buffer = RangeBuffer(str(file), len(data), [(at, at + size) for at, size in spans])
    assert len(buffer) == len(data)
    assert buffer[start:stop] == data[start:stop]


@given(st.integers(0, 333), st.integers(0, 300), st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_are_found_where_they_are(file: Path, start: int, at: int, size: int) -> None:
    data = file.read_bytes()
    wanted = data[at : at + size]
    assert RangeBuffer(str(file), len(data)).find(wanted, start) == data.find(wanted, start)
    assert RangeBuffer(str(file), len(data)).find(b"\xff\xff", start) == -1


def test_what_was_announced_is_fetched_once_and_nothing_else(file: Path) -> None:
    buffer = RangeBuffer(str(file), 333, [(0, 10), (15, 20), (200, 210)])
    assert buffer.fetched == 20 + 10  # the gap of 5 costs less than a request
    assert buffer[201:209] == file.read_bytes()[201:209]
    assert buffer.fetched == 30
    assert buffer[100:101] == file.read_bytes()[100:101]
    assert buffer.fetched == 62
