"""What a worker does with one unit: read its records, write and commit its shards.

The same code runs in the process and in a Ray task. It starts again from what is committed, so a
task that Ray retries after a crash of its worker does only what is left.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from mmdata.errors import BadInputError, MMDataError, ReadFaultError, StorageError
from mmdata.samples.assemble import (
    AssemblyPolicy,
    Draft,
    MissingImageError,
    Outcome,
    Scores,
    finish,
)
from mmdata.shards.groups import GroupLabel
from mmdata.shards.naming import sample_key
from mmdata.shards.writer import ShardWriter
from mmdata.sources.base import RecordError
from mmdata.sources.records import Overlong, Segment, read_records
from mmdata.storage.lease import holds
from mmdata.versions import clip_versions, codec_versions
from pipelines.clip.backend import Scored, front_end, open_backend
from pipelines.clip.model import ClipSpec
from pipelines.clip.scoring import DocumentScorer, Item
from pipelines.conversion.output import committed, lacks_images
from pipelines.conversion.plan import SegmentScan, Unit
from pipelines.engine.events import Alive, Pulse
from schemas.manifest import Kind, Reject, RejectAction, SourceSpan, Tally
from schemas.reasons import DocumentDrop

Job = TypeVar("Job")

#: Records between two ticks of progress.
TICK_RECORDS = 50
#: Records whose images are fetched early from a store; their bytes are held meanwhile.
AHEAD_RECORDS = 8


class Counting(Protocol):
    """What the plan asks of a recipe; picklable."""

    @property
    def kind(self) -> Kind:
        """Of the conversion."""
        ...

    @property
    def max_record_bytes(self) -> int:
        """Longer records are passed over."""
        ...

    @property
    def key_prefix(self) -> str:
        """Put before every sample key."""
        ...

    @property
    def policy(self) -> AssemblyPolicy:
        """What is kept of a document."""
        ...

    def scan(self, segment: Segment) -> SegmentScan:
        """Count a segment's records and look for its first images."""
        ...


class Recipe(Counting, Protocol):
    """How one kind of input becomes samples; picklable."""

    def open(self, segment: Segment) -> "RecordConverter":
        """Get ready to convert a segment's records."""


class RecordConverter(Protocol):
    """Turns records of one segment into samples, or into drafts where CLIP is to score them."""

    def __call__(self, record: bytes | Overlong) -> Outcome | Draft:
        """One record as a sample, or why not."""


@runtime_checkable
class LooksAhead(Protocol):
    """A converter that is faster when it knows the next records early: its images are far away."""

    def ahead(self, record: bytes | Overlong) -> None:
        """Begin to fetch what a record needs."""


class UnitError(MMDataError):
    """A record made its unit fail; the text names it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class UnitTask(Generic[Job]):
    """A unit with all that a worker needs to do it."""

    unit: Unit
    recipe: Job
    output: str
    lease_path: str
    run: str
    fingerprint: str
    versions: dict[str, str]
    shards: tuple[int, ...]
    refresh_missing: bool = False
    clip: ClipSpec | None = None
    """What computes the similarities; None: the source has them."""
    pool: tuple[str, ...] = ()
    """Names of the actors that score; empty where the task does."""
    energon: bool = False
    """Whether Energon's index is written with each shard."""
    counts_unplaced: bool = True
    """Whether records that no split can be told of are counted here."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress since the last tick."""

    records: int
    images: int
    image_bytes: int
    dropped: int


def convert_unit(task: UnitTask[Recipe]) -> Iterator[Tick | Scored | Alive]:
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


def _convert(task: UnitTask[Recipe]) -> Iterator[Tick | Scored | Alive]:
    unit = task.unit
    records = read_records(unit.segment, task.recipe.max_record_bytes)
    convert = task.recipe.open(unit.segment)
    position = 0
    for shard in sorted(task.shards):
        if is_done(task, shard):
            continue
        begin, end = unit.cut(shard - unit.first_shard), unit.cut(shard - unit.first_shard + 1)
        yield from pass_over(records, begin - position)
        position = end
        part = islice(records, end - begin)
        yield from _write_shard(task, shard, begin, part, end - begin, convert)


def pass_over(records: Iterator[Any], number: int) -> Iterator[Alive]:
    """Read on to where a missing shard begins."""
    pulse = Pulse()
    for _ in islice(records, number):
        if pulse.due():
            yield Alive()


def conversion_versions(clip: ClipSpec | None) -> dict[str, str]:
    """Versions of all that decides the shards' bytes."""
    return codec_versions() | (clip_versions() if clip else {})


def check_versions(task: UnitTask[Any], versions: dict[str, str]) -> None:
    """Refuse to work with other libraries than the plan was made with."""
    if versions != task.versions:
        changed = sorted(k for k in task.versions if versions.get(k) != task.versions[k])
        raise UnitError(
            f"this worker has other versions of {', '.join(changed)} than the plan; install the "
            "same everywhere, else the shards would differ"
        )


def is_done(task: UnitTask[Any], shard: int) -> bool:
    """Whether a crashed attempt at this task has committed the shard already."""
    sidecar = committed(task.output, shard, task.fingerprint)
    return sidecar is not None and not (task.refresh_missing and lacks_images(sidecar))


def _write_shard(
    task: UnitTask[Recipe],
    shard: int,
    begin: int,
    records: Iterator[bytes | Overlong],
    expected: int,
    convert: RecordConverter,
) -> Iterator[Tick | Scored]:
    unit = task.unit
    prefix = task.recipe.key_prefix
    groups = label_of_policy(task.recipe.policy)
    writer = ShardWriter(task.output, shard, key_prefix=prefix, energon=task.energon, groups=groups)
    last = Tick(0, 0, 0, 0)
    count = 0
    pulse = Pulse()
    scoring = _Scoring(task.clip, task.pool, shard) if task.clip else None
    drafts = _drafts(unit, begin, records, convert)
    outcomes = scoring.outcomes(drafts) if scoring else drafts
    try:
        for place, outcome in outcomes:
            count += 1
            outcome = _finished(outcome)
            if outcome.elsewhere or not (outcome.placed or task.counts_unplaced):
                writer.tally.other_splits += 1
            else:
                _add_outcome(writer, unit, place, outcome, prefix)
            if count % TICK_RECORDS == 0 or pulse.due():
                now = progress_of(writer.tally)
                yield ticked(last, now)
                last = now
        if count != expected:
            raise UnitError(
                f"{unit.label}: {begin + count} records, {unit.num_records} were counted; "
                "it changed while the run was going: start again with --overwrite"
            )
        writer.commit(
            kind=task.recipe.kind,
            fingerprint=task.fingerprint,
            first_ordinal=unit.first_ordinal + begin,
            source=[span_of(unit, begin, count)],
            may_commit=lambda: holds(task.lease_path, task.run),
        )
    except BaseException:
        writer.discard()
        raise
    yield ticked(last, progress_of(writer.tally))
    if scoring:
        yield scoring.report()


def label_of_policy(policy: AssemblyPolicy) -> GroupLabel | None:
    """What the samples tables say of groups; None where nothing is to stay together."""
    grouping = policy.grouping
    if grouping is None or not grouping.asked:
        return None
    return GroupLabel(grouping.by, grouping.key_id)


class _Scoring:
    """Drafts of one shard on their way through CLIP."""

    def __init__(self, clip: ClipSpec, pool: tuple[str, ...], turn: int) -> None:
        self._source = clip.source
        self._backend = open_backend(clip, pool, turn)
        self._scorer = DocumentScorer(self._backend, front_end(clip), clip.batch_size)

    def outcomes(
        self, drafts: Iterator[tuple[int, Outcome | Draft]]
    ) -> Iterator[tuple[int, Outcome]]:
        """What becomes of each, in order."""
        for (place, draft), matrix in self._scorer.score(map(_item, drafts)):
            if isinstance(draft, Draft):
                yield place, finish(draft, Scores(matrix, self._source))
            else:
                yield place, draft

    def report(self) -> Scored:
        """What was scored."""
        backend = self._backend
        return Scored(
            self._scorer.images, self._scorer.sentences, backend.busy_seconds, backend.seconds
        )


def _item(placed: tuple[int, Outcome | Draft]) -> Item[tuple[int, Outcome | Draft]]:
    """A draft as what is scored; what was dropped waits for its turn without images."""
    draft = placed[1]
    if not isinstance(draft, Draft):
        return Item(placed, [], [], 0)
    pixels, draft.pixels = draft.pixels, []
    held = sum(picture.num_bytes for picture in draft.pictures)
    return Item(placed, pixels, draft.document.text_list, held)


def _finished(outcome: Outcome | Draft) -> Outcome:
    return finish(outcome) if isinstance(outcome, Draft) else outcome


def _drafts(
    unit: Unit, begin: int, records: Iterator[bytes | Overlong], convert: RecordConverter
) -> Iterator[tuple[int, Outcome | Draft]]:
    """Every record's place in the unit, and what the recipe makes of it."""
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


def span_of(unit: Unit, begin: int, count: int) -> SourceSpan:
    """Records of a unit, counted from its first, as a span of their file."""
    return SourceSpan(
        file=unit.file,
        member=unit.segment.member if unit.member is None else unit.member,
        first_record=unit.first_record + begin,
        num_records=count,
    )


def _add_outcome(
    writer: ShardWriter, unit: Unit, place: int, outcome: Outcome, key_prefix: str
) -> None:
    """Write what became of one record, and count it."""
    span = span_of(unit, place, 1)
    ordinal = unit.first_ordinal + place
    if outcome.parts:
        writer.add(ordinal, span, outcome.parts, outcome.row)
    count_outcome(writer.tally, outcome)
    for reject in reject_lines(outcome, span, sample_key(ordinal, key_prefix)):
        writer.reject(reject)


def count_outcome(tally: Tally, outcome: Outcome) -> None:
    """Add what became of one record."""
    tally.records += 1
    if outcome.drop:
        increment(tally.documents_dropped, outcome.drop[0].value)
    else:
        tally.documents += 1
        tally.images += len(outcome.row["matched"])
        tally.sentences += outcome.row["sentences"]
        tally.image_bytes += sum(outcome.row["image_bytes"])
        tally.images_reencoded += sum(outcome.row["reencoded"])
        tally.images_listed += len(outcome.row["matched"])
    tally.images_listed += len(outcome.dropped_images)
    for reason, _ in outcome.dropped_images.values():
        increment(tally.images_dropped, reason.value)
    for note, number in Counter(note for _, note, _ in outcome.notes).items():
        increment(tally.notes, note, number)


def increment(counts: dict[str, int], name: str, number: int = 1) -> None:
    """Count something by its name."""
    counts[name] = counts.get(name, 0) + number


def reject_lines(outcome: Outcome, span: SourceSpan, key: str) -> Iterator[Reject]:
    """The lines of the rejects file: of the document, then of each image that it loses."""

    def reject(action: RejectAction, reason: str, detail: str, image: int | None = None) -> Reject:
        return Reject(
            action=action,
            reason=reason,
            file=span.file,
            member=span.member,
            record=span.first_record,
            key=key,
            image="" if image is None else str(image),
            detail=detail,
        )

    if outcome.drop:
        reason, detail = outcome.drop
        yield reject("dropped-document", reason.value, detail)
    for index, (image_reason, detail) in sorted(outcome.dropped_images.items()):
        yield reject("dropped-image", image_reason.value, detail, index)
    for noted, note, detail in outcome.notes:
        yield reject("kept", note, detail, noted)


def progress_of(tally: Tally) -> Tick:
    """A tally as progress."""
    dropped = sum(tally.documents_dropped.values())
    return Tick(tally.records + tally.other_splits, tally.images, tally.image_bytes, dropped)


def ticked(before: Tick, now: Tick) -> Tick:
    """The progress between two."""
    return Tick(
        now.records - before.records,
        now.images - before.images,
        now.image_bytes - before.image_bytes,
        now.dropped - before.dropped,
    )


def overlong_drop(record: Overlong, limit: int) -> Outcome:
    """The outcome of a record that is longer than the limit."""
    detail = f"expected at most {limit} bytes, got {record.num_bytes}"
    return Outcome(drop=(DocumentDrop.RECORD_TOO_LARGE, detail))
