"""The order of a stream's samples: arithmetic on (seed, stream, epoch, sizes of the shards, lanes).

Each epoch permutes the shards and deals them to G *lanes*; a lane cuts its shards into windows of W
and permutes the samples of each window. Every slot of the global batch is one lane's, so what one
lane rejects shifts nothing for another, and which rank or worker reads a lane changes nothing in
what a batch holds. Any position can be worked out without reading what comes before it.

* Many shards (4 a lane or more): whole shards, each to the lane with the fewest samples so far.
* Few: a lane gets an equal, contiguous span of the permuted shards, laid end to end in a circle
  that is turned each epoch, so that a lane's records are others each time.
* Resampled: an epoch of a lane is W shards drawn with replacement.
* On disk (validation): contiguous spans in the order of the shards, nothing permuted.

A lane that ends goes on with its next epoch; lanes of unequal size drift apart, and each keeps its
own count. A sample moves within its window: neighbours in a lane come from W·n samples, those of a
batch from all lanes. Memory: 4 bytes a sample of the windows of the lanes that are read, 8 a shard.

The random numbers are the raw output of numpy's PCG64, which does not change between versions
(methods of Generator may), sorted.
"""

import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.wording import plural

#: Fewer shards a lane than this, and lanes get spans: whole ones would make them too unequal.
_WHOLE_SHARDS_A_LANE = 4
_EPOCHS_KEPT = 4


@dataclass(frozen=True, slots=True, order=True)
class LanePosition:
    """Where a lane stands: the next thing that it reads.

    Attributes:
        epoch: of the lane; with resampling, windows drawn before this one.
        index: of the record in the order of the lane's epoch.
        chunk: of the record, where it is cut into several.
    """

    epoch: int = 0
    index: int = 0
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream stands, between two global batches.

    Attributes:
        lanes: of each lane; None for those of other ranks. Empty: at the start.
    """

    lanes: tuple[LanePosition | None, ...] = ()

    def lane(self, number: int) -> LanePosition:
        """The position of one lane.

        Raises:
            ValueError: another rank's, whose position was not merged in.
        """
        if not self.lanes:
            return LanePosition()
        found = self.lanes[number]
        if found is None:
            raise ValueError(f"lane {number}: its position is not known here")
        return found

    @property
    def last_epoch(self) -> int:
        """The furthest that any lane is."""
        return max((lane.epoch for lane in self.lanes if lane is not None), default=0)

    def record(self) -> list[list[int] | None]:
        """[epoch, index, chunk] of each lane, for JSON; None for a lane of another rank."""
        return [
            None if lane is None else [lane.epoch, lane.index, lane.chunk] for lane in self.lanes
        ]

    @classmethod
    def of_record(cls, record: Iterable[Sequence[int] | None]) -> "Position":
        """From JSON."""
        return cls(tuple(None if one is None else LanePosition(*one) for one in record))

    @classmethod
    def merge(cls, parts: Sequence["Position"]) -> "Position":
        """The whole, from what each rank knows of its own lanes.

        Raises:
            ValueError: a lane is nobody's, or two ranks have it.
        """
        merged: list[LanePosition | None] = []
        for number, lane in enumerate(zip(*(part.lanes for part in parts), strict=True)):
            known = [one for one in lane if one is not None]
            if len(known) != 1:
                raise ValueError(
                    f"lane {number}: {plural(len(known), 'rank')} have it, expected one"
                )
            merged.append(known[0])
        return cls(tuple(merged))


@dataclass(frozen=True, slots=True)
class _Window:
    """Pieces of shards that are shuffled together, from `start` of the lane's epoch on."""

    epoch: int
    start: int
    pieces: NDArray[np.int64]
    bounds: NDArray[np.int64]
    order: NDArray[np.uint32]


class Lanes:
    """Which record of which shard comes where in which lane.

    Attributes:
        sizes: samples of each shard.
        num_lanes: G.
        window_shards: of a lane.
        whole_shards: whether lanes get whole shards, and not spans.

    Args:
        sizes: samples of each shard; one of them at least is not empty.
        seed: of the run.
        stream: name, so that streams of one run differ.
        num_lanes: G.
        window_shards: shards that a lane shuffles together; None: no shuffling, as on disk.
        resampled: shards are drawn with replacement.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        seed: int,
        stream: str,
        num_lanes: int,
        window_shards: int | None,
        resampled: bool = False,
    ) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self._full = np.flatnonzero(self.sizes)
        self._seed, self._stream = seed, stream
        self.num_lanes, self.window_shards = num_lanes, window_shards
        self._resampled = resampled
        many = len(self._full) >= _WHOLE_SHARDS_A_LANE * num_lanes
        self.whole_shards = many and window_shards is not None
        self._shuffled: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self._dealt: OrderedDict[int, list[list[int]]] = OrderedDict()
        self._pieces: OrderedDict[tuple[int, int], NDArray[np.int64]] = OrderedDict()
        self._sizes: dict[tuple[int, int], int] = {}
        self._windows: dict[int, _Window] = {}

    def __len__(self) -> int:
        """Records of an epoch, of all lanes."""
        return int(self.sizes.sum())

    def size(self, lane: int, epoch: int) -> int:
        """Records of a lane's epoch."""
        pieces = self.pieces(lane, epoch)
        key = (lane, epoch)
        if key not in self._sizes:
            self._sizes[key] = int(pieces[:, 2].sum())
        return self._sizes[key]

    def place(self, lane: int, position: LanePosition) -> tuple[int, int]:
        """(shard, ordinal of the sample in it) of the record at a position."""
        window = self._windows.get(lane)
        if (
            window is None
            or window.epoch != position.epoch
            or not 0 <= position.index - window.start < len(window.order)
        ):
            window = self._windows[lane] = self._find(lane, position)
        nth = int(window.order[position.index - window.start])
        slot = int(np.searchsorted(window.bounds, nth, side="right")) - 1
        shard, first, _ = window.pieces[slot]
        return int(shard), int(first) + nth - int(window.bounds[slot])

    def start(self, lane: int, position: LanePosition) -> LanePosition:
        """The position, or the next that holds a record: a lane's epoch may be empty."""
        epoch = position.epoch
        if self.window_shards is None or self.size(lane, epoch):
            return position
        while not self.size(lane, epoch):
            epoch += 1
        return LanePosition(epoch)

    def following(self, lane: int, position: LanePosition) -> LanePosition:
        """The position after a record; an epoch's last is followed by the next epoch's first."""
        if position.index + 1 < self.size(lane, position.epoch):
            return LanePosition(position.epoch, position.index + 1)
        return self.start(lane, LanePosition(position.epoch + 1))

    def upcoming(self, lane: int, position: LanePosition) -> list[int]:
        """The shards of a position's window and of the one after it, in this order."""
        width = self.window_shards or 1
        pieces = self.pieces(lane, position.epoch)
        ends = np.cumsum(pieces[:, 2])
        number = int(np.searchsorted(ends, position.index, side="right")) // width
        near = pieces[number * width : (number + 2) * width, 0].tolist()
        if len(pieces) <= (number + 1) * width and self.window_shards is not None:
            near += self.pieces(lane, position.epoch + 1)[:width, 0].tolist()
        return list(dict.fromkeys(near))

    def pieces(self, lane: int, epoch: int) -> NDArray[np.int64]:
        """What a lane reads in an epoch: rows of (shard, first sample, number of samples)."""
        key = (lane, epoch)
        if key not in self._pieces:
            self._pieces[key] = self._make_pieces(lane, epoch)
            if len(self._pieces) > 2 * self.num_lanes + 2:
                self._sizes.pop(self._pieces.popitem(last=False)[0], None)
        self._pieces.move_to_end(key)
        return self._pieces[key]

    def _make_pieces(self, lane: int, epoch: int) -> NDArray[np.int64]:
        if self._resampled and self.window_shards is not None:
            raw = self._raw(self.window_shards, epoch, f"draws of lane {lane}")
            return self._whole(self._full[(raw % np.uint64(len(self._full))).astype(np.int64)])
        if self.whole_shards:
            return self._whole(np.asarray(self._deal(epoch)[lane], dtype=np.int64))
        return self._span(lane, epoch)

    def _whole(self, shards: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.stack([shards, np.zeros_like(shards), self.sizes[shards]], axis=1)

    def _deal(self, epoch: int) -> list[list[int]]:
        """Whole shards to lanes, each to the one that has the fewest samples."""
        if epoch not in self._dealt:
            hands: list[list[int]] = [[] for _ in range(self.num_lanes)]
            fewest = [(0, lane) for lane in range(self.num_lanes)]
            for shard in self._permuted_shards(epoch).tolist():
                held, lane = fewest[0]
                hands[lane].append(shard)
                heapq.heapreplace(fewest, (held + int(self.sizes[shard]), lane))
            _keep(self._dealt, epoch, hands)
        return self._dealt[epoch]

    def _span(self, lane: int, epoch: int) -> NDArray[np.int64]:
        """A lane's equal part of the shards end to end; it may lie across the circle's seam."""
        shards = self._permuted_shards(epoch)
        ends = np.cumsum(self.sizes[shards])
        total = int(ends[-1])
        turn, part = 0, lane
        if self.window_shards is not None:
            raw = self._raw(2, epoch, "turn")
            turn = int(raw[0] % np.uint64(total))
            part = (lane + int(raw[1] % np.uint64(self.num_lanes))) % self.num_lanes
        first = part * total // self.num_lanes + turn
        last = (part + 1) * total // self.num_lanes + turn
        rows: list[tuple[int, int, int]] = []
        for low, high in ((first, min(last, total)), (max(first, total) - total, last - total)):
            while low < high:
                slot = int(np.searchsorted(ends, low, side="right"))
                shard = int(shards[slot])
                begin = int(ends[slot]) - int(self.sizes[shard])
                number = min(high, int(ends[slot])) - low
                rows.append((shard, low - begin, number))
                low += number
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def _permuted_shards(self, epoch: int) -> NDArray[np.int64]:
        """Shards that are not empty, in the order of an epoch."""
        if self.window_shards is None:
            return self._full
        if epoch not in self._shuffled:
            permuted = self._full[self._permute(len(self._full), epoch, "shards")]
            _keep(self._shuffled, epoch, permuted)
        return self._shuffled[epoch]

    def _find(self, lane: int, position: LanePosition) -> _Window:
        pieces = self.pieces(lane, position.epoch)
        width = self.window_shards or 1
        ends = np.cumsum(pieces[:, 2])
        number = int(np.searchsorted(ends, position.index, side="right")) // width
        start = int(ends[number * width - 1]) if number else 0
        mine = pieces[number * width : (number + 1) * width]
        bounds = np.concatenate(([0], np.cumsum(mine[:, 2])[:-1]))
        total = int(mine[:, 2].sum())
        order: NDArray[Any] = np.arange(total)
        if self.window_shards is not None:
            order = self._permute(total, position.epoch, f"lane {lane} window {number}")
        return _Window(position.epoch, start, mine, bounds, order.astype(np.uint32))

    def _permute(self, number: int, epoch: int, what: str) -> NDArray[np.int64]:
        return np.argsort(self._raw(number, epoch, what), kind="stable")

    def _raw(self, number: int, epoch: int, what: str) -> NDArray[np.uint64]:
        text = f"{self._seed}\0{self._stream}\0{epoch}\0{what}".encode()
        entropy = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
        return np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(number)


def _keep(kept: "OrderedDict[int, Any]", epoch: int, value: Any) -> None:
    """Remember an epoch's, and forget the one made longest ago."""
    kept[epoch] = value
    if len(kept) > _EPOCHS_KEPT:
        kept.popitem(last=False)
