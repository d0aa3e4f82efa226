"""What a worker does with one unit of convert-laion: rows in, images fetched ahead, shards out.

Rows, downloads, checks, similarities and the tar are one stream in input order; only downloads run
ahead. A shard whose failed rows are fetched again starts from what it holds (`kept_rows.py`).
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

from mmdata.fetch.outcome import Fetched, FetchStatus
from mmdata.images import ImageRejected
from mmdata.samples.assemble import Draft, MissingImageError, Outcome, Scores, check, finish
from mmdata.samples.pairs import drop_below, finish_pair
from mmdata.shards.naming import OUTCOMES, sample_key
from mmdata.shards.writer import ShardWriter
from mmdata.sources.laion import AnyRow, read_rows
from mmdata.sources.laion_rows import PairSource, document_extras
from mmdata.sources.names import StoredImage
from mmdata.sources.records import Overlong
from pipelines.clip.backend import Scored
from pipelines.clip.drafts import ShardScorer, scored_by
from pipelines.conversion.counts import count_outcome, overlong_drop, span_of
from pipelines.conversion.output import committed
from pipelines.conversion.plan import ConversionUnit
from pipelines.conversion.shard_job import counted, head_of, pass_over, write_shard
from pipelines.conversion.task import UnitError, UnitTask, check_versions, conversion_versions
from pipelines.downloads.outcomes import KEPT, has_failed, image_drop, outcome_row, write_table
from pipelines.engine.events import Alive, Tick
from pipelines.laion.job import LaionJob
from pipelines.laion.kept_rows import HeldShard
from pipelines.laion.rows import Place, parsed
from schemas.reasons import ImageDrop, ImageNote


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
    unit, job = task.unit, task.job
    rows = read_rows(unit.segment, job.names, job.max_record_bytes, job.quoting)
    position = 0
    with ExitStack() as stack:
        downloads: Downloads | None = None
        for shard in sorted(task.shards):
            if _is_done(task, shard):
                continue
            if downloads is None:
                downloads = stack.enter_context(_open_downloads(job))
            begin, end = unit.places(shard)
            yield from pass_over(rows, begin - position)
            position = end
            part = counted(rows, end - begin, unit, begin)
            yield from _ShardOfRows(task, shard, downloads).write(part)


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
    return not (task.job.retry_failed and has_failed(task.output, shard))


class _ShardOfRows:
    """One shard in the making."""

    def __init__(self, task: UnitTask[LaionJob], shard: int, downloads: Downloads) -> None:
        self.task = task
        self.unit: ConversionUnit = task.unit
        self.job = task.job
        self.shard = shard
        self.downloads = downloads
        self.outcomes: list[dict[str, object]] = []
        self.asked = False

    def write(self, rows: Iterator[AnyRow]) -> Iterator[Tick | Scored | Alive]:
        """Write and commit it."""
        task, clip = self.task, self.job.clip
        stands = committed(task.output, self.shard, task.fingerprint, verify=True)
        scorer = ShardScorer(clip, task.pool, self.shard) if clip else None
        with ExitStack() as stack:
            held = None
            if stands is not None:
                held = stack.enter_context(HeldShard(task.output, self.shard))
            drafts = self._drafts(self._parsed(rows, held), scorer)
            fill = partial(self._fill, drafts, scorer, held)
            head = head_of(task, self.shard, self.job.layout)
            yield from write_shard(task, self.shard, head, fill)
        if scorer:
            yield scorer.report()

    def _fill(
        self,
        drafts: Iterator[tuple[Place | Alive, Draft | None]],
        scorer: ShardScorer | None,
        held: HeldShard | None,
        writer: ShardWriter,
    ) -> Iterator[Alive | None]:
        """Write what became of each row, and last the table of the downloads."""
        for place, _, scores in scored_by(scorer, drafts):
            if isinstance(place, Alive):
                yield place
            else:
                self._add(writer, place, scores, held)
                yield None
        if self.asked:
            writer.attach(OUTCOMES).write(write_table(self.outcomes))

    def _parsed(self, rows: Iterator[AnyRow], held: HeldShard | None) -> Iterator[Place]:
        """Every row as a pair, or why it is none."""
        job = self.job
        for number, row in enumerate(rows, start=self.unit.places(self.shard)[0]):
            key = sample_key(self.unit.first_ordinal + number, job.key_prefix)
            if held is not None and held.keeps(key):
                yield Place(number, key, held=True)
            elif isinstance(row, Overlong):
                yield Place(number, key, drop=overlong_drop(row, job.max_record_bytes))
            else:
                yield parsed(number, key, row, job)

    def _drafts(
        self, places: Iterator[Place], scorer: ShardScorer | None
    ) -> Iterator[tuple[Place | Alive, Draft | None]]:
        """Every row with its download and its checked picture."""
        to_pixels = scorer.front.pixels if scorer else None
        for event in self.downloads.fetched(places, lambda place: place.url):
            if isinstance(event, Alive):
                yield event, None
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
            yield place, place.draft

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
        count_outcome(writer, outcome, span_of(self.unit, place.place, 1), place.key)
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
