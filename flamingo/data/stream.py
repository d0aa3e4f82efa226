"""A stream of batches that is a function of (seed, epoch, shards) and stops and goes on anywhere.

The order is arithmetic (`flamingo.data.order`). Records are read, selected and tokenised in that
order in the caller's thread; the images that stay are decoded by a few threads, some records
ahead; results are taken in order again. So the number of threads changes the speed and nothing
else, and a position, two numbers, is all that a resume needs.

What is not used is counted by reason. A pass over all records that yields nothing is an error
with these counts, where OpenFlamingo's loader goes round for ever.

Cost of looking ahead: two batches of records, JSON and all, are in memory (1 MB a document).
"""

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from torch import Tensor

from flamingo.data.batch import Batch, Sample, collate
from flamingo.data.catalogue import find_shards, resolve_rule
from flamingo.data.config import StreamConfig
from flamingo.data.order import Order, Position
from flamingo.data.packing import NextFit
from flamingo.data.prepare import Example, Plan, Preparer
from flamingo.data.records import Record, RecordRule, UnusableError, read_record
from flamingo.data.starvation import PassWatch
from flamingo.data.tokens import MediaTokenizer
from mmdata.errors import BadInputError, UserError
from mmdata.shards.reader import ShardReader

logger = logging.getLogger(__name__)
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class _Pending:
    """A record whose images are being decoded.

    Attributes:
        after: the position after it.
        record: None when it is none of the stream's kind.
        decoded: futures by image; empty without threads.
    """

    key: str
    source: str
    epoch: int
    after: Position
    record: Record | None
    plan: Plan
    decoded: dict[int, "Future[Tensor | None]"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a record."""

    sample: Sample
    after: Position

    @property
    def plan(self) -> Plan:
        return self.sample.example.plan


@dataclass(frozen=True, slots=True)
class _Row:
    """A sequence of a batch.

    Attributes:
        samples: several where they are packed.
        position: after the last of them.
        drops: since the row before.
    """

    samples: list[Sample]
    position: Position
    drops: Counter[str]


def _joined(rows: list[_Row]) -> _Row:
    samples = [sample for row in rows for sample in row.samples]
    return _Row(samples, rows[-1].position, sum((row.drops for row in rows), Counter()))


class Stream:
    """The samples of some shards, in batches.

    Attributes:
        config: as given.
        rule: `interleaved` or `caption`.
        num_samples: records of an epoch, before any is dropped.
        drops: of all batches that were taken from this object, by reason.

    Args:
        config: what to read and how.
        tokenizer: with the media tokens.
        seed: of the run.
        validation: every sample once, in the order on disk, no coins; the last batch is what is
            left.

    Raises:
        UserError: no shards, or what is asked for cannot be.
        BadInputError: a shard cannot be read.
    """

    def __init__(
        self,
        config: StreamConfig,
        tokenizer: MediaTokenizer,
        *,
        seed: int = 0,
        validation: bool = False,
    ) -> None:
        self.config = config
        self._tokenizer, self._validation = tokenizer, validation
        self._catalogue = find_shards(config.name, config.shards)
        self.rule: RecordRule = (
            resolve_rule(config.name, self._catalogue) if config.rule == "auto" else config.rule
        )
        self._preparer = Preparer(config, self.rule, tokenizer, seed=seed, validation=validation)
        self._seed = seed
        self._pack = config.pack_tokens
        if self._pack is not None and self._pack < self._preparer.max_tokens:
            raise UserError(
                f"stream {config.name}: pack_tokens {self._pack}: expected at least the "
                f"{self._preparer.max_tokens} tokens of a sample"
            )
        self.num_samples = self._catalogue.num_samples
        self.drops: Counter[str] = Counter()
        logger.info("%s", self.describe())

    def describe(self) -> str:
        """One line for the start of a run."""
        shards = len(self._catalogue.shards)
        return f"stream {self.config.name}: {self.num_samples} {self.rule} samples, {shards} shards"

    @property
    def identity(self) -> str:
        """Equal when a position means the same sample: of shards, seed and window."""
        return f"{self._catalogue.identity}-{self._seed}-{self.config.shuffle_shards}"

    def expect_tower(self, tower: str) -> None:
        """Refuse precomputed features of another vision tower than this (`TowerSpec.identity`)."""
        self._preparer.expect_tower(tower)

    def batches(self, start: Position | None = None) -> Iterator[Batch]:
        """Batches from a position on: without end, or, in validation, to the end of the shards.

        Raises:
            UserError: a whole pass over the records yields nothing.
            BadInputError: a shard is damaged.
        """
        rows: list[_Row] = []
        drops: Counter[str] = Counter()
        for row in self._rows(start or Position()):
            drops += row.drops
            if row.samples:
                rows.append(row)
            if len(rows) == self.config.batch_size:
                yield self._batch(rows, drops)
                rows, drops = [], Counter()
        if rows:
            yield self._batch(rows, drops)
        else:
            self.drops += drops

    def _batch(self, rows: list["_Row"], drops: Counter[str]) -> Batch:
        self.drops += drops
        return collate(
            [sample for row in rows for sample in row.samples],
            self._tokenizer,
            self.rule,
            position=rows[-1].position,
            drops=drops,
            per_sequence=None if self._pack is None else [len(row.samples) for row in rows],
        )

    def _rows(self, start: Position) -> Iterator["_Row"]:
        """Sequences: one sample each, or packed; last what was dropped behind the last sample."""
        watch = PassWatch(self.config, self.rule, self._preparer.policy)
        open_row: NextFit[_Row] = NextFit(self._pack or 0)
        drops: Counter[str] = Counter()
        position = start
        for outcome in self._outcomes(start):
            drops += outcome.plan.drops
            watch.saw(outcome.plan, position, outcome.after)
            position = outcome.after
            if outcome.plan.document_drop is not None:
                continue
            row = _Row([outcome.sample], position, drops)
            drops = Counter()
            if self._pack is None:
                yield row
            elif closed := open_row.add(row, len(outcome.plan.input_ids)):
                yield _joined(closed)
        if last := open_row.close():
            yield _joined(last)
        yield _Row([], position, drops)

    def _outcomes(self, start: Position) -> Iterator[_Outcome]:
        """What became of each record, in order."""
        pending: deque[_Pending] = deque()
        ahead = _BATCHES_AHEAD * self.config.batch_size if self.config.decode_threads else 0
        with ExitStack() as stack:
            pool = None
            if self.config.decode_threads:
                pool = ThreadPoolExecutor(self.config.decode_threads, "decode")
                stack.callback(pool.shutdown, cancel_futures=True)
            readers = stack.enter_context(_Readers(self.config.shuffle_shards))
            for record in self._records(start, readers):
                self._submit(record, pool)
                pending.append(record)
                if len(pending) > ahead:
                    yield self._finish(pending.popleft())
            while pending:
                yield self._finish(pending.popleft())

    def _records(self, start: Position, readers: "_Readers") -> Iterator[_Pending]:
        """Records read and planned, in order."""
        shards = self._catalogue.shards
        order = Order(
            [shard.num_samples for shard in shards],
            seed=self._seed,
            stream=self.config.name,
            window_shards=None if self._validation else self.config.shuffle_shards,
        )
        position = start
        while not (self._validation and position.epoch):
            shard, ordinal = order.place(position)
            after = order.following(position)
            path = shards[shard].path
            reader, keys = readers.open(path, shards[shard].num_samples)
            key = keys[ordinal]
            try:
                record = read_record(reader.read(key).members, self.rule)
                plans = self._preparer.plans(record, key, position.epoch)
            except UnusableError as error:
                record, plans = None, [Plan(document_drop=error.reason)]
            for chunk in range(position.chunk, len(plans)):
                is_last = chunk + 1 == len(plans)
                behind = after if is_last else replace(position, chunk=chunk + 1)
                yield _Pending(key, path, position.epoch, behind, record, plans[chunk])
            position = after

    def _submit(self, pending: _Pending, pool: ThreadPoolExecutor | None) -> None:
        record = pending.record
        if pool is None or record is None or pending.plan.document_drop is not None:
            return
        for image in pending.plan.images:
            pending.decoded[image] = pool.submit(
                self._preparer.decode, record, image, pending.key, source=pending.source
            )

    def _finish(self, pending: _Pending) -> _Outcome:
        example = Example(pending.plan)
        if pending.record is not None:
            decoded = {image: future.result() for image, future in pending.decoded.items()}
            example = self._preparer.finish(
                pending.record,
                pending.key,
                pending.epoch,
                pending.plan,
                decoded,
                source=pending.source,
            )
        return _Outcome(Sample(pending.key, pending.source, example), pending.after)


class _Readers:
    """Shards that are open, the one used longest ago closed first; a context manager."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: OrderedDict[str, tuple[ShardReader, list[str]]] = OrderedDict()

    def open(self, path: str, num_samples: int) -> tuple[ShardReader, list[str]]:
        """A shard's reader and its keys in order."""
        if path not in self._open:
            reader = ShardReader(path)
            keys = reader.keys
            if len(keys) != num_samples:
                reader.close()
                raise BadInputError(
                    f"{path}: expected {num_samples} samples as its manifest says, got {len(keys)}"
                )
            self._open[path] = (reader, keys)
            if len(self._open) > self._most:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(path)
        return self._open[path]

    def __enter__(self) -> "_Readers":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()
