"""What a worker does with one unit: read its records, write and commit its shards.

The same code runs in the process and in a Ray task. It starts again from what is committed, so a
task that Ray retries after a crash of its worker does only what is left.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Protocol, runtime_checkable

from mmdata.errors import BadInputError, ReadFaultError, StorageError
from mmdata.samples.assemble import Draft, MissingImageError, Outcome, finish
from mmdata.shards.naming import sample_key
from mmdata.shards.writer import ShardWriter
from mmdata.sources.base import RecordError
from mmdata.sources.records import Overlong, read_records
from pipelines.clip.backend import Scored
from pipelines.clip.drafts import ShardScorer, scored_by
from pipelines.conversion.counts import count_outcome, span_of
from pipelines.conversion.plan import ConversionUnit
from pipelines.conversion.shard_job import counted, head_of, pass_over, write_shard
from pipelines.conversion.task import (
    Job,
    RecordConverter,
    UnitError,
    UnitTask,
    check_versions,
    conversion_versions,
    is_done,
)
from pipelines.engine.events import Alive, Tick

#: Records whose images are fetched early from a store; their bytes are held meanwhile.
AHEAD_RECORDS = 8


@runtime_checkable
class LooksAhead(Protocol):
    """A converter that is faster when it knows the next records early: its images are far away."""

    def ahead(self, record: bytes | Overlong) -> None:
        """Begin to fetch what a record needs."""


def convert_unit(task: UnitTask[Job]) -> Iterator[Tick | Scored | Alive]:
    """Write the task's shards of a unit.

    Raises:
        UnitError: a record that cannot be got over, by name.
    """
    check_versions(task, conversion_versions(task.clip))
    try:
        yield from _convert(task)
    except (BadInputError, StorageError) as error:  # they name the file
        if task.unit.member is None:
            raise
        raise UnitError(f"{task.unit.label}: is damaged, gone, or cannot be read") from error


def _convert(task: UnitTask[Job]) -> Iterator[Tick | Scored | Alive]:
    unit = task.unit
    records = read_records(unit.segment, task.job.max_record_bytes)
    convert = task.job.open(unit.segment)
    position = 0
    for shard in sorted(task.shards):
        if is_done(task, shard):
            continue
        begin, end = unit.places(shard)
        yield from pass_over(records, begin - position)
        position = end
        part = counted(records, end - begin, unit, begin)
        yield from _convert_shard(task, shard, _drafts(unit, begin, part, convert))


def _convert_shard(
    task: UnitTask[Job], shard: int, drafts: Iterator[tuple[int, Outcome | Draft]]
) -> Iterator[Tick | Scored]:
    scorer = ShardScorer(task.clip, task.pool, shard) if task.clip else None
    fill = partial(_fill, task, _outcomes(drafts, scorer))
    yield from write_shard(task, shard, head_of(task, shard), fill)
    if scorer:
        yield scorer.report()


def _outcomes(
    drafts: Iterator[tuple[int, Outcome | Draft]], scorer: ShardScorer | None
) -> Iterator[tuple[int, Outcome]]:
    """Every record's place, and what becomes of it; what is asked for is scored first."""
    for place, made, scores in scored_by(scorer, drafts):
        yield place, finish(made, scores) if isinstance(made, Draft) else made


def _fill(
    task: UnitTask[Job], outcomes: Iterator[tuple[int, Outcome]], writer: ShardWriter
) -> Iterator[None]:
    """Write what became of each record, and count it."""
    unit = task.unit
    for place, outcome in outcomes:
        if outcome.elsewhere or not (outcome.placed or task.counts_unplaced):
            writer.tally.other_splits += 1
        else:
            ordinal, span = unit.first_ordinal + place, span_of(unit, place, 1)
            if outcome.parts:
                writer.add(ordinal, span, outcome.parts, outcome.row)
            count_outcome(writer, outcome, span, sample_key(ordinal, task.job.key_prefix))
        yield None


def _drafts(
    unit: ConversionUnit, begin: int, records: Iterator[bytes | Overlong], convert: RecordConverter
) -> Iterator[tuple[int, Outcome | Draft]]:
    """Every record's place in the unit, and what the job makes of it."""
    for place, record in enumerate(_looked_ahead(records, convert), start=begin):
        where = f"{unit.label}: record {unit.first_record + place}"
        try:
            yield place, convert(record)
        except (MissingImageError, RecordError) as error:
            raise UnitError(f"{where}: {error}") from error
        except ReadFaultError as error:
            what = error if unit.member is None else "an image of it cannot be read"
            raise UnitError(f"{where}: {what}") from error
        # Whatever a record brings about is told with the record; the unit then fails, others go on.
        except Exception as error:
            detail = f": {error}" if unit.member is None else ""
            raise RuntimeError(f"{where}: {type(error).__name__}{detail}") from error


def _looked_ahead(
    records: Iterator[bytes | Overlong], convert: RecordConverter
) -> Iterator[bytes | Overlong]:
    """The records; a converter that wants to is shown each of them some places early."""
    if not isinstance(convert, LooksAhead):
        yield from records
        return
    waiting: deque[bytes | Overlong] = deque()
    for record in records:
        convert.ahead(record)
        waiting.append(record)
        if len(waiting) > AHEAD_RECORDS:
            yield waiting.popleft()
    yield from waiting
