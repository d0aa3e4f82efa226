"""The order of a stream's samples: arithmetic on (seed, stream, epoch, sizes of the shards).

Each epoch permutes the shards, cuts them into windows of W, and permutes the samples of each
window. So any position can be worked out without reading what comes before it, a resume costs
nothing, and W shards are open at a time. A sample moves within its window only: with W shards of
n samples, neighbours come from W·n samples.

The random numbers are the raw output of numpy's PCG64, which does not change between versions
(methods of Generator may), sorted.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a stream stands: the next record to read, as its index in the order of its epoch, and
    the next of its chunks where it is a document that was cut into several."""

    epoch: int = 0
    index: int = 0
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class _Window:
    """Shards that are shuffled together, from `start` of the epoch's order on."""

    epoch: int
    start: int
    shards: NDArray[np.int64]
    bounds: NDArray[np.int64]
    order: NDArray[np.int64]


class Order:
    """Which record of which shard comes where.

    Args:
        sizes: samples of each shard.
        seed: of the run.
        stream: name, so that streams of one run differ.
        window_shards: shards that are shuffled together; None: no shuffling, as on disk.
    """

    def __init__(
        self, sizes: Sequence[int], *, seed: int, stream: str, window_shards: int | None
    ) -> None:
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._seed, self._stream, self._window_shards = seed, stream, window_shards
        self._epoch = -1
        self._shards = np.arange(len(self._sizes))
        self._starts: list[int] = []
        self._window: _Window | None = None

    def __len__(self) -> int:
        """Records of an epoch."""
        return int(self._sizes.sum())

    def place(self, position: Position) -> tuple[int, int]:
        """(shard, ordinal of the sample in it) of the record at a position."""
        window = self._window
        if (
            window is None
            or window.epoch != position.epoch
            or not 0 <= position.index - window.start < len(window.order)
        ):
            window = self._window = self._find(position)
        nth = int(window.order[position.index - window.start])
        slot = int(np.searchsorted(window.bounds, nth, side="right")) - 1
        return int(window.shards[slot]), nth - int(window.bounds[slot])

    def following(self, position: Position) -> Position:
        """The position after one; an epoch's last is followed by the next epoch's first."""
        if position.index + 1 < len(self):
            return Position(position.epoch, position.index + 1)
        return Position(position.epoch + 1, 0)

    def _find(self, position: Position) -> _Window:
        if self._epoch != position.epoch or not self._starts:
            self._begin(position.epoch)
        number = bisect_right(self._starts, position.index) - 1
        width = self._window_shards or 1
        shards = self._shards[number * width : (number + 1) * width]
        ends = np.cumsum(self._sizes[shards])
        samples = np.arange(int(ends[-1]))
        if self._window_shards is not None:
            samples = self._permute(len(samples), position.epoch, f"window {number}")
        bounds = np.concatenate(([0], ends[:-1]))
        return _Window(position.epoch, self._starts[number], shards, bounds, samples)

    def _begin(self, epoch: int) -> None:
        """Permute the shards, and find where the windows start."""
        self._epoch = epoch
        if self._window_shards is not None:
            self._shards = self._permute(len(self._sizes), epoch, "shards")
        width = self._window_shards or 1
        totals = [
            int(self._sizes[self._shards[first : first + width]].sum())
            for first in range(0, len(self._shards), width)
        ]
        self._starts = [0, *accumulate(totals)][:-1]

    def _permute(self, number: int, epoch: int, what: str) -> NDArray[np.int64]:
        text = f"{self._seed}\0{self._stream}\0{epoch}\0{what}".encode()
        entropy = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
        raw = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(number)
        return np.argsort(raw, kind="stable")
