"""The loop that writes a shard: what it tells on the way, commits, and leaves where it fails."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmdata.shards.writer import LeaseLostError, ShardWriter
from mmdata.sources.records import Segment
from mmdata.storage.lease import Lease
from pipelines.conversion.plan import ConversionUnit
from pipelines.conversion.shard_job import TICK_RECORDS, ShardHead, counted, write_shard
from pipelines.conversion.task import UnitError
from pipelines.engine.events import Tick
from schemas.manifest import Sidecar, Tally

HEAD = ShardHead(kind="mmc4", first_ordinal=7, source=[])


@dataclass(frozen=True)
class Task:
    output: str
    lease_path: str
    run: str
    fingerprint: str = "f"


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    with Lease(str(tmp_path)) as lease:
        yield Task(str(tmp_path), lease.path, lease.holder.run)


def counting(number: int) -> Any:
    """Counts so many records, none of which is a sample."""

    def fill(writer: ShardWriter) -> Iterator[None]:
        for _ in range(number):
            writer.tally.records += 1
            yield None

    return fill


def shard_files(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if "000000003" in name)


def test_a_shard_is_committed_with_a_tick_after_so_many_records(task: Task) -> None:
    ticks = list(write_shard(task, 3, HEAD, counting(TICK_RECORDS + 1)))
    assert ticks == [Tick(TICK_RECORDS, 0, 0, 0), Tick(1, 0, 0, 0)]
    raw = Path(task.output, "000000003.json").read_bytes()
    sidecar = msgspec.json.decode(raw, type=Sidecar)
    assert (sidecar.first_ordinal, sidecar.fingerprint) == (7, "f")
    assert sidecar.tally.records == TICK_RECORDS + 1


def test_what_is_told_is_handed_on_and_is_no_record(task: Task) -> None:
    def fill(writer: ShardWriter) -> Iterator[str | None]:
        yield "first"
        yield from counting(2)(writer)

    assert list(write_shard(task, 3, HEAD, fill)) == ["first", Tick(2, 0, 0, 0)]


def test_counts_that_there_were_before_are_no_progress(task: Task) -> None:
    tally = Tally(records=5, documents_dropped={"empty-document": 5})
    before = ShardHead(kind="mmc4", first_ordinal=7, source=[], tally=tally)
    assert list(write_shard(task, 3, before, counting(2))) == [Tick(2, 0, 0, 0)]


def test_a_failure_leaves_nothing_behind(task: Task) -> None:
    def fill(writer: ShardWriter) -> Iterator[None]:
        yield from counting(2)(writer)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(write_shard(task, 3, HEAD, fill))
    assert shard_files(task.output) == []


def test_an_interruption_leaves_nothing_behind(task: Task) -> None:
    events = write_shard(task, 3, HEAD, counting(TICK_RECORDS + 1))
    next(events)
    assert shard_files(task.output) != []
    events.close()  # type: ignore[attr-defined]
    assert shard_files(task.output) == []


def test_a_run_that_was_taken_over_commits_nothing(task: Task) -> None:
    other = Task(task.output, task.lease_path, "another run")
    with pytest.raises(LeaseLostError, match="another run has taken over"):
        list(write_shard(other, 3, HEAD, counting(1)))
    assert shard_files(task.output) == []


class TestCounted:
    UNIT = ConversionUnit(
        segment=Segment("a.jsonl", end=9),
        file="a.jsonl",
        first_record=0,
        num_records=5,
        first_ordinal=0,
        first_shard=0,
        num_shards=2,
    )

    def test_hands_on_a_shards_records_and_no_more(self) -> None:
        records = iter("abcde")
        assert list(counted(records, 2, self.UNIT, 0)) == ["a", "b"]
        assert next(records) == "c"

    def test_says_where_an_input_has_become_shorter(self) -> None:
        with pytest.raises(UnitError, match=r"a\.jsonl: 4 records, 5 were counted; it changed"):
            list(counted(iter("cd"), 3, self.UNIT, 2))
