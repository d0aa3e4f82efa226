"""SIDE015 and SIDE008 over shards of pairs: tables that belong to other shards are found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.fetch.outcome import Fetched, FetchStatus
from mmdata.validation.shard import ShardTask, check_shard
from pipelines.laion import unit as laion_unit
from pipelines.laion.run import convert_laion
from tests.corpus import picture
from tests.laion_factory import options, write


class Web:
    """Downloads without a network: the third fails."""

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def fetched(self, items: Any, url_of: Any) -> Any:
        for number, item in enumerate(items):
            good = number != 2
            data = picture(number) if good else b""
            status = FetchStatus.OK if good else FetchStatus.DNS
            yield item, Fetched(status, data, attempts=1, detail="" if good else "gone")


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(laion_unit, "_open_downloads", lambda job: Web())
    table = [{"url": f"http://x/{k}.jpg", "caption": "a"} for k in range(4)]
    source = write(tmp_path / "a.parquet", table)
    convert_laion(options(source, tmp_path / "out", layout="pairs"), quiet=True)
    return tmp_path / "out" / "000000000.tar"


def codes(shard: Path) -> set[str]:
    task = ShardTask(path=str(shard), level="full", max_findings=9, owed=True)
    return set(check_shard(task).counts)


def test_as_it_was_written_it_is_clean(shard: Path) -> None:
    assert codes(shard) == set()


def drop_a_row(table: pa.Table) -> pa.Table:
    return table.slice(1)


def say_it_was_kept(table: pa.Table) -> pa.Table:
    column = table.column_names.index("result")
    return table.set_column(column, "result", pa.array(["kept"] * len(table)))


def take_a_column(table: pa.Table) -> pa.Table:
    return table.drop_columns(["result"])


@pytest.mark.parametrize("change", [drop_a_row, say_it_was_kept, take_a_column])
def test_outcomes_of_other_records(shard: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = shard.with_name("000000000.outcomes.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    assert codes(shard) == {"SIDE015"}


def test_outcomes_that_cannot_be_read(shard: Path) -> None:
    shard.with_name("000000000.outcomes.parquet").write_bytes(b"no parquet")
    assert codes(shard) == {"SIDE015"}


def test_a_row_of_the_samples_table_is_about_the_picture(shard: Path) -> None:
    path = shard.with_name("000000000.samples.parquet")
    table = pq.read_table(path)
    moved = pa.array([offset + 512 for offset in table.column("offset").to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("offset"), "offset", moved), path)
    assert {"SIDE007", "SIDE008"} <= codes(shard)
