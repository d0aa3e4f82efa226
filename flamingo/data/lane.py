"""One lane of a stream: its records read ahead in order, accepted ones handed out one by one.

A record is read, selected and tokenised in the caller's thread; its images are decoded by a pool.
Only decoding tells whether a record is good, so the lane keeps some that look good in hand, and
takes the next when one is not: what it rejects shifts nothing for another lane.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from torch import Tensor

from flamingo.data.batch import SourcedExample
from flamingo.data.order import LanePosition, Lanes
from flamingo.data.prepare import Example, Preparer
from flamingo.data.shard_pool import ShardPool
from mmdata.training_view.plans import RecordPlan
from mmdata.training_view.records import Record, RecordRule, UnusableError, read_record
from mmdata.training_view.selection import DocumentReason


@dataclass(frozen=True, slots=True)
class _Pending:
    """A record, or a chunk of one, whose images are being decoded.

    Attributes:
        at: its position.
        after: the position after it.
        record: None when it is none of the stream's kind.
        decoded: futures by image; empty without threads.
    """

    key: str
    source: str
    at: LanePosition
    after: LanePosition
    record: Record | None
    plan: RecordPlan
    decoded: dict[int, "Future[Tensor | None]"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A record that was read.

    Attributes:
        at: its position.
        after: the position after it.
        record: None when it is none of the stream's kind.
        reason: why.
    """

    at: LanePosition
    after: LanePosition
    source: str
    key: str
    record: Record | None
    reason: DocumentReason | None


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """What became of a record.

    Attributes:
        at: its position in its lane.
        after: the lane's position after it.
        sample: what is used of it; nothing where its plan says why not.
    """

    at: LanePosition
    after: LanePosition
    sample: SourcedExample

    @property
    def plan(self) -> RecordPlan:
        return self.sample.example.plan

    @property
    def is_used(self) -> bool:
        return self.plan.document_drop is None


class LaneReader:
    """Reads a lane from a position on.

    Attributes:
        position: after the last record that was taken.

    Args:
        number: of the lane.
        position: where it stands.
        order: of the stream.
        shards: where its records are read.
        source_of: the path of a shard by its number.
        preparer: of the stream.
        rule: of the stream.
        pool: that decodes; None: where the sample is asked for.
        is_endless: goes on with the next epoch.
    """

    def __init__(
        self,
        number: int,
        position: LanePosition,
        *,
        order: Lanes,
        shards: ShardPool,
        source_of: Callable[[int], str],
        preparer: Preparer,
        rule: RecordRule,
        pool: ThreadPoolExecutor | None,
        is_endless: bool = True,
    ) -> None:
        self.number = number
        self._order, self._shards, self._source_of = order, shards, source_of
        self._preparer, self._rule, self._pool = preparer, rule, pool
        self._is_endless = is_endless
        self.position = order.start(number, position)
        self._next = self.position
        self._pending: deque[_Pending] = deque()
        self._num_good = 0  # pending that look good

    def read_ahead(self, samples: int) -> None:
        """Read until so many records in hand look good, or many more do not."""
        most = 4 * samples
        while self._num_good < samples and len(self._pending) < most and not self._is_at_end():
            # One after the other, reading and tokenising would drive each other from the caches.
            number = min(samples - self._num_good, most - len(self._pending))
            self._read(number)

    def outcomes(self) -> Iterator[RecordOutcome]:
        """What became of each record, in order, from the position on."""
        while self._pending or not self._is_at_end():
            if not self._pending:
                self._read(1)
            pending = self._pending.popleft()
            self._num_good -= pending.plan.document_drop is None
            outcome = self._finish(pending)
            self.position = pending.after
            yield outcome

    def _is_at_end(self) -> bool:
        if self._is_endless:
            return False
        return bool(self._next.epoch) or not self._order.size(self.number, 0)

    def _read(self, number: int) -> None:
        """Read the next records, all of their chunks, and begin to decode."""
        loaded: list[_Loaded] = []
        while len(loaded) < number and not self._is_at_end():
            loaded.append(self._load())
        for one in loaded:
            plans = self._plans(one)
            for chunk in range(min(one.at.chunk, len(plans) - 1), len(plans)):
                self._add(one, plans[chunk], chunk, is_last=chunk + 1 == len(plans))

    def _load(self) -> _Loaded:
        """The next record, and go on behind it."""
        at = self._next
        if self._shards.fetches:
            self._shards.expect(self.number, self._order.upcoming(self.number, at))
        shard, ordinal = self._order.place(self.number, at)
        self._next = self._order.following(self.number, LanePosition(at.epoch, at.index))
        place = (at, self._next, self._source_of(shard))
        try:
            found = self._shards.read(shard, ordinal)
            record = read_record(found.members, self._rule)
        except UnusableError as error:
            return _Loaded(*place, self._shards.key(shard, ordinal), None, error.reason)
        return _Loaded(*place, found.key, record, None)

    def _plans(self, loaded: _Loaded) -> list[RecordPlan]:
        if loaded.record is None:
            return [RecordPlan(document_drop=loaded.reason)]
        return self._preparer.plans(loaded.record, loaded.key, loaded.at.epoch)

    def _add(self, loaded: _Loaded, plan: RecordPlan, chunk: int, *, is_last: bool) -> None:
        at = loaded.at
        here = LanePosition(at.epoch, at.index, chunk)
        after = loaded.after if is_last else LanePosition(at.epoch, at.index, chunk + 1)
        pending = _Pending(loaded.key, loaded.source, here, after, loaded.record, plan)
        self._submit(pending)
        self._pending.append(pending)
        self._num_good += plan.document_drop is None

    def _submit(self, pending: _Pending) -> None:
        record = pending.record
        if self._pool is None or record is None or pending.plan.document_drop is not None:
            return
        for image in pending.plan.images:
            pending.decoded[image] = self._pool.submit(
                self._preparer.decode, record, image, pending.key, source=pending.source
            )

    def _finish(self, pending: _Pending) -> RecordOutcome:
        example = Example(pending.plan)
        if pending.record is not None:
            decoded = {image: future.result() for image, future in pending.decoded.items()}
            example = self._preparer.finish(
                pending.record,
                pending.key,
                pending.at.epoch,
                pending.plan,
                decoded,
                source=pending.source,
            )
        return RecordOutcome(
            pending.at, pending.after, SourcedExample(pending.key, pending.source, example)
        )
