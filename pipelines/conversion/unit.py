"""What a worker does with one unit: read its records, write and commit its shards.

The same code runs in the process and in a Ray task. It starts again from what is committed, so a
task that Ray retries after a crash of its worker does only what is left.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial

from mmdata.errors import BadInputError, ReadFaultError, StorageError
from mmdata.samples.assemble import Draft, MissingImageError, Outcome, finish
from mmdata.shards.naming import sample_key
from mmdata.shards.writer import ShardWriter
from mmdata.sources.base import RecordError
from mmdata.sources.image_objects import ImageObjects
from mmdata.sources.names import NamedImages
from mmdata.sources.records import Overlong, read_records
from pipelines.clip.backend import Scored
from pipelines.clip.drafts import ShardScorer, scored_by
from pipelines.conversion.counts import count_outcome, span_of
from pipelines.conversion.image_inputs import fetch_ahead
from pipelines.conversion.job import RecordConverter, RecordsJob
from pipelines.conversion.plan import ConversionUnit
from pipelines.conversion.shard_job import counted, head_of, pass_over, write_shard
from pipelines.conversion.task import (
    UnitError,
    UnitTask,
    check_versions,
    conversion_versions,
    is_done,
)
from pipelines.engine.events import Alive, Tick

#: Records whose images are fetched early from a store; their bytes are held meanwhile.
AHEAD_RECORDS = 8


def convert_unit(task: UnitTask[RecordsJob]) -> Iterator[Tick | Scored | Alive]:
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


def _convert(task: UnitTask[RecordsJob]) -> Iterator[Tick | Scored | Alive]:
    unit, job = task.unit, task.job
    records = read_records(unit.segment, job.max_record_bytes)
    store = job.store(unit.segment)
    convert = job.converter(store)
    position = 0
    for shard in sorted(task.shards):
        if is_done(task, shard):
            continue
        begin, end = unit.places(shard)
        yield from pass_over(records, begin - position)
        position = end
        part = counted(records, end - begin, unit, begin)
        part = _fetched_ahead(part, job, store)
        yield from _convert_shard(task, shard, _drafts(unit, begin, part, convert))


def _convert_shard(
    task: UnitTask[RecordsJob], shard: int, drafts: Iterator[tuple[int, Outcome | Draft]]
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
    task: UnitTask[RecordsJob], outcomes: Iterator[tuple[int, Outcome]], writer: ShardWriter
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
    for place, record in enumerate(records, start=begin):
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


def _fetched_ahead(
    records: Iterator[bytes | Overlong], job: RecordsJob, store: NamedImages
) -> Iterator[bytes | Overlong]:
    """The records; the images of each are asked of a store that is far away some places early."""
    if not isinstance(store, ImageObjects):
        yield from records
        return
    waiting: deque[bytes | Overlong] = deque()
    for record in records:
        fetch_ahead(store, job.parse_ahead, record)
        waiting.append(record)
        if len(waiting) > AHEAD_RECORDS:
            yield waiting.popleft()
    yield from waiting
