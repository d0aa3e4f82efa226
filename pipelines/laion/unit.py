"""What a worker does with one unit of convert-laion: rows in, images fetched ahead, shards out.

Rows, downloads, checks, similarities and the tar are one stream in input order; only downloads run
ahead. A shard whose failed rows are fetched again starts from what it holds (`laion_held.py`).
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from itertools import islice
from typing import Protocol, cast

from mmdata.fetch.outcome import Fetched, FetchStatus
from mmdata.fetch.policy import FetchPolicy
from mmdata.images import ImageRejected
from mmdata.samples.assemble import (
    AssemblyPolicy,
    MissingImageError,
    Outcome,
    Scores,
    check,
    finish,
)
from mmdata.samples.pairs import drop_below, finish_pair
from mmdata.shards.naming import OUTCOMES, sample_key
from mmdata.shards.writer import ShardWriter
from mmdata.sources.laion import AnyRow, read_rows
from mmdata.sources.laion_columns import ColumnNames
from mmdata.sources.laion_rows import PairSource, RowFilters, document_extras
from mmdata.sources.laion_text import Quoting
from mmdata.sources.names import StoredImage
from mmdata.sources.records import Overlong
from mmdata.storage.lease import holds
from pipelines.clip.backend import Scored, front_end, open_backend
from pipelines.clip.model import ClipSpec
from pipelines.clip.scoring import DocumentScorer, Item
from pipelines.conversion.output import committed
from pipelines.conversion.plan import Unit
from pipelines.conversion.unit import (
    TICK_RECORDS,
    Tick,
    UnitError,
    UnitTask,
    check_versions,
    conversion_versions,
    count_outcome,
    label_of_policy,
    overlong_drop,
    pass_over,
    progress_of,
    reject_lines,
    span_of,
    ticked,
)
from pipelines.engine.events import Alive, Pulse
from pipelines.laion.kept_rows import HeldShard
from pipelines.laion.options import FetcherName, Layout
from pipelines.laion.outcomes import KEPT, has_failed, image_drop, outcome_row, write_table
from pipelines.laion.rows import Place, parsed
from schemas.reasons import ImageDrop, ImageNote


class LaionJob(Protocol):
    """What a worker has to know."""

    @property
    def max_record_bytes(self) -> int: ...
    @property
    def key_prefix(self) -> str: ...
    @property
    def names(self) -> ColumnNames: ...
    @property
    def quoting(self) -> Quoting: ...
    @property
    def filters(self) -> RowFilters: ...
    @property
    def policy(self) -> AssemblyPolicy: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def fetcher(self) -> FetcherName: ...
    @property
    def fetch(self) -> FetchPolicy: ...
    @property
    def retry_failed(self) -> bool: ...
    @property
    def clip(self) -> ClipSpec | None: ...


class Downloads(Protocol):
    """Fetches URLs ahead, and hands them out in order."""

    def fetched(
        self, items: Iterator[Place], url_of: Callable[[Place], str | None]
    ) -> Iterator[tuple[Place, Fetched | None] | Alive]: ...


def laion_unit(task: UnitTask[LaionJob]) -> Iterator[Tick | Scored | Alive]:
    """Write the task's shards of a unit.

    Raises:
        UnitError: a row that cannot be got over, by name.
    """
    check_versions(task, conversion_versions(task.clip))
    unit, job = task.unit, task.recipe
    rows = read_rows(unit.segment, job.names, job.max_record_bytes, job.quoting)
    position = 0
    with ExitStack() as stack:
        downloads: Downloads | None = None
        for shard in sorted(task.shards):
            if _is_done(task, shard):
                continue
            if downloads is None:
                downloads = stack.enter_context(_open_downloads(job))
            begin, end = unit.cut(shard - unit.first_shard), unit.cut(shard - unit.first_shard + 1)
            yield from pass_over(rows, begin - position)
            position = end
            work = _ShardWork(task, shard, begin, end - begin, downloads)
            yield from work.write(islice(rows, end - begin))


def _open_downloads(job: LaionJob) -> AbstractContextManager[Downloads]:
    """The fetcher of a run; it is opened also where the input holds its images, and then idle."""
    if job.fetcher == "img2dataset":
        from pipelines.laion.img2dataset import Img2dataset

        return Img2dataset(job.fetch)
    if job.fetcher == "none":
        return _NoDownloads()
    from mmdata.fetch.ahead import Fetcher

    return cast(AbstractContextManager[Downloads], Fetcher(job.fetch))


class _NoDownloads(AbstractContextManager["_NoDownloads"]):
    """Nothing is asked."""

    def fetched(
        self, items: Iterator[Place], url_of: Callable[[Place], str | None]
    ) -> Iterator[tuple[Place, Fetched | None]]:
        for item in items:
            yield item, None

    def __exit__(self, *_: object) -> None:
        return None


def _is_done(task: UnitTask[LaionJob], shard: int) -> bool:
    """Whether the shard stands, and nothing in it is to be fetched again."""
    if committed(task.output, shard, task.fingerprint) is None:
        return False
    return not (task.recipe.retry_failed and has_failed(task.output, shard))


class _ShardWork:
    """One shard in the making."""

    def __init__(
        self,
        task: UnitTask[LaionJob],
        shard: int,
        begin: int,
        expected: int,
        downloads: Downloads,
    ) -> None:
        self.task = task
        self.unit: Unit = task.unit
        self.job = task.recipe
        self.shard = shard
        self.begin = begin
        self.expected = expected
        self.downloads = downloads
        self.outcomes: list[dict[str, object]] = []
        self.asked = False

    def write(self, rows: Iterator[AnyRow]) -> Iterator[Tick | Scored | Alive]:
        """Write and commit it."""
        stands = committed(self.task.output, self.shard, self.task.fingerprint, verify=True)
        with ExitStack() as stack:
            held = None
            if stands is not None:
                held = stack.enter_context(HeldShard(self.task.output, self.shard))
            writer = ShardWriter(
                self.task.output,
                self.shard,
                key_prefix=self.job.key_prefix,
                energon=self.task.energon,
                groups=label_of_policy(self.job.policy),
            )
            try:
                yield from self._fill(writer, rows, held)
                self._commit(writer)
            except BaseException:
                writer.discard()
                raise

    def _fill(
        self, writer: ShardWriter, rows: Iterator[AnyRow], held: HeldShard | None
    ) -> Iterator[Tick | Scored | Alive]:
        last, count, pulse = Tick(0, 0, 0, 0), 0, Pulse()
        scoring = _Scoring(self.job.clip, self.task.pool, self.shard) if self.job.clip else None
        drafts = self._drafts(self._parsed(rows, held), scoring)
        for place, scores in scoring.scored(drafts) if scoring else ((p, None) for p in drafts):
            if isinstance(place, Alive):
                yield place
                continue
            count += 1
            self._add(writer, place, scores, held)
            if count % TICK_RECORDS == 0 or pulse.due():
                now = progress_of(writer.tally)
                yield ticked(last, now)
                last = now
        if count != self.expected:
            raise UnitError(
                f"{self.unit.segment.label}: {self.begin + count} records, "
                f"{self.unit.num_records} were counted; it changed while the run was going: start "
                "again with --overwrite"
            )
        yield ticked(last, progress_of(writer.tally))
        if scoring:
            yield scoring.report()

    def _commit(self, writer: ShardWriter) -> None:
        if self.asked:
            writer.attach(OUTCOMES).write(write_table(self.outcomes))
        writer.commit(
            kind="laion",
            fingerprint=self.task.fingerprint,
            first_ordinal=self.unit.first_ordinal + self.begin,
            source=[span_of(self.unit, self.begin, self.expected)],
            may_commit=lambda: holds(self.task.lease_path, self.task.run),
            layout=self.job.layout,
        )

    def _parsed(self, rows: Iterator[AnyRow], held: HeldShard | None) -> Iterator[Place]:
        """Every row as a pair, or why it is none."""
        job = self.job
        for number, row in enumerate(rows, start=self.begin):
            key = sample_key(self.unit.first_ordinal + number, job.key_prefix)
            if held is not None and held.keeps(key):
                yield Place(number, key, held=True)
            elif isinstance(row, Overlong):
                yield Place(number, key, drop=overlong_drop(row, job.max_record_bytes))
            else:
                yield parsed(number, key, row, job)

    def _drafts(
        self, places: Iterator[Place], scoring: "_Scoring | None"
    ) -> Iterator[Place | Alive]:
        """Every row with its download and its checked picture."""
        to_pixels = scoring.front.pixels if scoring else None
        for event in self.downloads.fetched(places, lambda place: place.url):
            if isinstance(event, Alive):
                yield event
                continue
            place, fetched = event
            place.fetched = fetched
            self.asked = self.asked or fetched is not None or place.held
            if place.pair is not None:
                where = f"{self.unit.segment.label}: record {self.unit.first_record + place.place}"
                try:
                    reader = _reader(place.pair, fetched)
                    place.draft = check(place.pair.document, reader, self.job.policy, to_pixels)
                except MissingImageError as error:
                    raise UnitError(f"{where}: {error}") from error
                # Whatever a row brings about is told with the row; the unit then fails.
                except Exception as error:
                    raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from error
                notes = place.draft.outcome.notes  # what a URL ends in promises nothing
                notes[:] = [note for note in notes if note[1] != ImageNote.WRONG_EXTENSION]
            yield place

    def _add(
        self, writer: ShardWriter, place: Place, scores: Scores | None, held: HeldShard | None
    ) -> None:
        """Write what became of one row, and count it."""
        if place.held and held is not None:
            self.outcomes.append(held.copy(place.key, writer))
            return
        outcome = self._finished(writer, place, scores)
        if outcome.elsewhere or not (outcome.placed or self.task.counts_unplaced):
            writer.tally.other_splits += 1
            return
        fetched, sha256 = place.fetched, ""
        if fetched is not None and fetched.status == FetchStatus.OK:
            sha256 = _body_sha256(place, fetched)
        count_outcome(writer.tally, outcome)
        span = span_of(self.unit, place.place, 1)
        for reject in reject_lines(outcome, span, place.key):
            writer.reject(reject)
        result, detail = _result(outcome)
        url = place.pair.url if place.pair else ""
        self.outcomes.append(outcome_row(place.key, url, fetched, sha256, result, detail))
        place.fetched = None

    def _finished(self, writer: ShardWriter, place: Place, scores: Scores | None) -> Outcome:
        if place.draft is None:
            return place.drop or Outcome()
        ordinal = self.unit.first_ordinal + place.place
        span = span_of(self.unit, place.place, 1)
        scores = drop_below(place.draft, scores)
        if self.job.layout == "pairs":
            pair = finish_pair(place.draft, place.key, scores)
            if pair.members:
                writer.add_members(ordinal, span, pair.members, pair.outcome.row)
            return pair.outcome
        document = place.draft.document
        place.draft.document = replace(document, extras=document_extras(document))
        outcome = finish(place.draft, scores)
        if outcome.parts:
            writer.add(ordinal, span, outcome.parts, outcome.row)
        return outcome


def _body_sha256(place: Place, fetched: Fetched) -> str:
    """Known already where the picture went into the shard as it came."""
    pictures = place.draft.pictures if place.draft else []
    if pictures and not pictures[0].reencoded:
        return pictures[0].sha256
    return hashlib.sha256(fetched.data).hexdigest()


def _reader(pair: PairSource, fetched: Fetched | None) -> Callable[[str], StoredImage]:
    """The picture's bytes, or why there are none."""

    def read(name: str) -> StoredImage:
        if fetched is not None:
            if fetched.status != FetchStatus.OK:
                raise ImageRejected(
                    image_drop(fetched.status), f"{fetched.status}: {fetched.detail}"
                )
            return StoredImage(fetched.data, name)
        if pair.row.image is None:
            raise ImageRejected(ImageDrop.MISSING, "the input has no image for this row")
        return StoredImage(pair.row.image, name)

    return read


def _result(outcome: Outcome) -> tuple[str, str]:
    """`kept`, or the reason that is nearest to the picture."""
    if outcome.row:
        return KEPT, ""
    for reason, detail in outcome.dropped_images.values():
        if reason != ImageDrop.DOCUMENT_DROPPED:
            return reason.value, detail
    return (outcome.drop[0].value, outcome.drop[1]) if outcome.drop else ("", "")


class _Scoring:
    """Rows of one shard on their way through CLIP."""

    def __init__(self, clip: ClipSpec, pool: tuple[str, ...], turn: int) -> None:
        self._source = clip.source
        self.front = front_end(clip)
        self._backend = open_backend(clip, pool, turn)
        self._scorer = DocumentScorer(self._backend, self.front, clip.batch_size)

    def scored(
        self, places: Iterator[Place | Alive]
    ) -> Iterator[tuple[Place | Alive, Scores | None]]:
        """Each row with the similarity of its picture, in order."""
        for place, matrix in self._scorer.score(map(_item, places)):
            scored = isinstance(place, Place) and place.draft is not None
            yield place, Scores(matrix, self._source) if scored else None

    def report(self) -> Scored:
        """What was scored."""
        backend = self._backend
        return Scored(
            self._scorer.images, self._scorer.sentences, backend.busy_seconds, backend.seconds
        )


def _item(place: Place | Alive) -> Item[Place | Alive]:
    draft = place.draft if isinstance(place, Place) else None
    if draft is None:
        return Item(place, [], [], 0)
    pixels, draft.pixels = draft.pixels, []
    held = sum(picture.num_bytes for picture in draft.pictures)
    return Item(place, pixels, draft.document.text_list, held)
