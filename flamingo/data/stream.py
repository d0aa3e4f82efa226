"""A stream of batches that is a function of (seed, shards, B) and stops and goes on anywhere.

The order is arithmetic (`flamingo.data.order`): a global batch of B samples is filled by G lanes,
each of which reads its own shards and goes on until it has enough. A rank reads its own lanes and
nothing else; how many ranks there are, and how many threads decode, changes nothing in what a
global batch holds. A position, three numbers a lane, is all that a resume needs.

What is not used is counted by reason. A stream that yields nothing is an error with these counts,
where OpenFlamingo's loader goes round for ever; damaged samples are skipped, up to a share.

Cost of looking ahead: two steps of records, JSON and all, are in memory (1 MB a document).
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from flamingo.data.batch import Batch, collate
from flamingo.data.cache import ShardCache
from flamingo.data.config import StreamConfig
from flamingo.data.damage import DamageCount, DamageWatch
from flamingo.data.empty_stream import PassWatch
from flamingo.data.lane import LaneReader, RecordOutcome
from flamingo.data.mix import Share, whole_share
from flamingo.data.order import LanePosition, Lanes, Position
from flamingo.data.prepare import Preparer
from flamingo.data.rows import LaneRun, Row
from flamingo.data.shard_pool import ShardPool
from flamingo.data.text_layout import DecoderText, TextLayout
from mmdata.catalogue.shards import catalogue_stream
from mmdata.errors import UserError
from mmdata.training_view.records import RecordRule
from mmdata.training_view.sequence import MediaTokenizer
from mmdata.wording import plural

logger = logging.getLogger(__name__)
_STEPS_AHEAD = 2
#: Of remote shards: the one that is read, and the one that is fetched ahead.
_WINDOWS_AT_HAND = 2
_LIKELY_PACKED = 4


class Stream:
    """The samples of some shards, in global batches of B, of which a rank makes its part.

    Attributes:
        config: as given.
        rule: `interleaved` or `caption`.
        num_samples: records of an epoch, before any is dropped.
        share: the lanes that are read here.
        drops: of all batches that were taken from this object, by reason.
        opened: shards that were opened here, by their number.

    Args:
        config: what to read and how.
        tokenizer: with the media tokens.
        seed: of the run.
        validation: every sample once, in the order on disk, no coins; the last batch is what is
            left. Ranks share the shards in contiguous parts.
        rank: of this process.
        world: ranks.
        share: the lanes to read, where they are not an equal part.
        cache: of shards that are not on this machine.
        layout: of the batches' text; a decoder's where none is given.
        is_pinned: whether a GPU will take the batches.

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
        rank: int = 0,
        world: int = 1,
        share: Share | None = None,
        cache: ShardCache | None = None,
        layout: TextLayout | None = None,
        is_pinned: bool = False,
    ) -> None:
        self.config = config
        self._layout, self._is_pinned = layout or DecoderText(tokenizer), is_pinned
        self._validation, self._cache = validation, cache
        batch_size = config.global_batch_size or config.batch_size * world
        if validation:
            self.share = Share(world, config.batch_size, range(rank, rank + 1))
        else:
            self.share = share or whole_share(
                batch_size, num_lanes=config.lanes, rank=rank, world=world
            )
        self._catalogue = catalogue_stream(
            config.name,
            config.shards,
            count_remote=cache.count if cache else None,
            index_folder=cache.folder if cache else None,
        )
        self._check_cache()
        self._seed = seed
        self.num_samples = self._catalogue.num_samples
        self.drops: Counter[str] = Counter()
        self.opened: set[int] = set()
        self._damage: DamageWatch | None = None
        self.rule: RecordRule = self._resolve_rule() if config.rule == "auto" else config.rule
        self._preparer = Preparer(config, self.rule, tokenizer, seed=seed, validation=validation)
        if config.pack_tokens is not None and config.pack_tokens < self._preparer.max_tokens:
            raise UserError(
                f"stream {config.name}: pack_tokens {config.pack_tokens}: expected at least the "
                f"{self._preparer.max_tokens} tokens of a sample"
            )
        logger.info("%s", self.describe())

    def describe(self) -> str:
        """One line for the start of a run."""
        shards = len(self._catalogue.shards)
        return (
            f"stream {self.config.name}: {self.num_samples} {self.rule} samples, "
            f"{plural(shards, 'shard')}"
        )

    @property
    def identity(self) -> str:
        """Equal when a position means the same sample: of shards, seed and window (and lanes)."""
        parts = [self._catalogue.identity, self._seed, self.config.shuffle_shards]
        return "-".join(map(str, parts + (["resampled"] if self.config.resampled else [])))

    def after(self, position: Position) -> Position:
        """Where a new sequence begins that goes on behind another's position: a fresh epoch.

        Lanes of another B are other lanes, so their positions cannot be carried over.
        """
        start = LanePosition(position.last_epoch + 1)
        return Position((start,) * self.share.num_lanes)

    def expect_tower(self, tower: str) -> None:
        """Refuse precomputed features of another vision tower than this (`TowerSpec.identity`)."""
        self._preparer.expect_tower(tower)

    def damage(self) -> DamageCount:
        """What was found damaged here since the last `steps` began; it adds up over ranks."""
        if self._damage is None:
            return DamageCount(self.config.name, self.config.max_bad_fraction)
        return self._damage.found

    def batches(self, start: Position | None = None) -> Iterator[Batch]:
        """The micro-batches of `steps`, one after the other."""
        with contextlib.closing(self.steps(start)) as steps:
            for step in steps:
                yield from step

    def steps(self, start: Position | None = None) -> Generator[list[Batch], None, None]:
        """This rank's part of each global batch, in micro-batches of `batch_size` at most.

        Without end, or, in validation, to the end of the shards, a micro-batch a step.

        Raises:
            UserError: no record of the stream can be used.
            BadInputError: a shard is damaged, or too many samples are.
            StorageError: a store does not answer.
        """
        position = start or Position()
        if position.lanes and len(position.lanes) != self.share.num_lanes:
            raise UserError(
                f"stream {self.config.name}: the position is of "
                f"{plural(len(position.lanes), 'lane')}, the "
                f"stream has {self.share.num_lanes}"
            )
        order = self._order(self.share.num_lanes)
        with ExitStack() as stack:
            shards = stack.enter_context(self._shards())
            pool = self._pool(stack)
            lanes = [
                self._lane(number, position.lane(number), order, shards, pool)
                for number in self.share.lanes
            ]
            watch = PassWatch(self.config, self.rule, self._preparer.policy, self._survey)
            records = sum(order.size(lane.number, 0) for lane in lanes)
            parts = self.share.num_lanes / max(1, len(lanes))
            damage = DamageWatch(self.config.name, self.config.max_bad_fraction, records, parts)
            self._damage = damage
            run = LaneRun(lanes, watch, damage, self.config.pack_tokens)
            if self._validation:
                yield from self._validation_steps(run)
            else:
                yield from self._training_steps(run)

    def _training_steps(self, run: LaneRun) -> Iterator[list[Batch]]:
        each, size = self.share.samples_per_lane, self.config.batch_size
        before = run.position(self.share)
        while True:
            for lane in run.lanes:
                lane.read_ahead(self._num_ahead(each))
            rows = [row for lane in run.lanes for row in run.take(lane, each)]
            after = run.position(self.share)
            yield self._collate(rows, size, before, after, run.drops)
            before, run.drops = after, Counter()

    def _validation_steps(self, run: LaneRun) -> Iterator[list[Batch]]:
        (lane,) = run.lanes
        size = self.config.batch_size
        while True:
            lane.read_ahead(self._num_ahead(size))
            rows = run.take(lane, size)
            if not rows:
                break
            yield self._collate(rows, size, Position(), Position(), run.drops)
            run.drops = Counter()
            if len(rows) < size:
                break
        self.drops += run.drops
        run.damage.report()

    def _num_ahead(self, sequences: int) -> int:
        """Samples to have in hand for so many sequences of a step."""
        steps = 1 + _STEPS_AHEAD if self.config.decode_threads else 1
        return steps * sequences * (1 if self.config.pack_tokens is None else _LIKELY_PACKED)

    def _collate(
        self,
        rows: list[Row],
        size: int,
        before: Position,
        after: Position,
        drops: Counter[str],
    ) -> list[Batch]:
        """Micro-batches of a step. The first tells the drops; the last, where the step ends."""
        self.drops += drops
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        is_packed = self.config.pack_tokens is not None
        return [
            collate(
                [sample for row in part for sample in row.samples],
                self._layout,
                self.rule,
                position=after if number + 1 == len(parts) else before,
                drops=Counter() if number else drops,
                per_sequence=[len(row.samples) for row in part] if is_packed else None,
                is_pinned=self._is_pinned,
            )
            for number, part in enumerate(parts)
        ]

    def _order(self, num_lanes: int, *, on_disk: bool | None = None) -> Lanes:
        as_on_disk = self._validation if on_disk is None else on_disk
        return Lanes(
            [shard.num_samples for shard in self._catalogue.shards],
            seed=self._seed,
            stream=self.config.name,
            num_lanes=num_lanes,
            window_shards=None if as_on_disk else self.config.shuffle_shards,
            resampled=self.config.resampled and not as_on_disk,
        )

    def _lane(
        self,
        number: int,
        position: LanePosition,
        order: Lanes,
        shards: ShardPool,
        pool: ThreadPoolExecutor | None,
        *,
        is_endless: bool | None = None,
    ) -> LaneReader:
        return LaneReader(
            number,
            position,
            order=order,
            shards=shards,
            source_of=lambda shard: self._catalogue.shards[shard].path,
            preparer=self._preparer,
            rule=self.rule,
            pool=pool,
            is_endless=not self._validation if is_endless is None else is_endless,
        )

    def _shards(self) -> ShardPool:
        shards = ShardPool(
            self._catalogue.shards,
            store=self._cache if self._catalogue.remote else None,
            index_folder=self._cache.folder if self._cache else None,
            most_indexes=max(4, len(self.share.lanes) * (self.config.shuffle_shards + 1)),
        )
        shards.opened = self.opened
        return shards

    def _pool(self, stack: ExitStack) -> ThreadPoolExecutor | None:
        if not self.config.decode_threads:
            return None
        pool = ThreadPoolExecutor(self.config.decode_threads, "decode")
        stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _survey(self) -> Iterator[RecordOutcome]:
        """Every record of the stream, in the order on disk."""
        with self._shards() as shards:
            order = self._order(1, on_disk=True)
            yield from self._lane(
                0, LanePosition(), order, shards, None, is_endless=False
            ).outcomes()

    def _resolve_rule(self) -> RecordRule:
        with self._shards() as shards:
            found = self._catalogue.rule(lambda shard: shards.read(shard, 0).members)
        if found is None:
            first = self._catalogue.first
            raise UserError(
                f"stream {self.config.name}: {first.path if first else ''}: its first sample does "
                "not tell whether the stream is interleaved or of captions; set its rule"
            )
        return found

    def _check_cache(self) -> None:
        """Whether what is remote can be read, and whether the cache holds what is at hand."""
        remote = self._catalogue.remote
        if not remote:
            return
        if self._cache is None:
            raise UserError(f"stream {self.config.name}: {remote[0].path}: give --cache-dir")
        largest = max(shard.num_bytes or 0 for shard in remote)
        windows = 1 if self._validation else _WINDOWS_AT_HAND * self.config.shuffle_shards
        number = min(len(remote), len(self.share.lanes) * windows)
        logger.info(
            "stream %s: up to %d shards at hand, %.2f GB of the cache at most",
            self.config.name,
            number,
            number * largest / 1e9,
        )
        if number * largest > self._cache.max_bytes:
            logger.warning(
                "stream %s: %d lanes x %d shards of up to %.2f GB do not fit in the cache of "
                "%.2f GB: shards will be fetched more than once; raise --cache-gb, or lower "
                "--shuffle-shards",
                self.config.name,
                len(self.share.lanes),
                windows,
                largest / 1e9,
                self._cache.max_bytes / 1e9,
            )
