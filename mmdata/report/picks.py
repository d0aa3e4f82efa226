"""Which documents a report shows: some at random, and those whose images fit worst and best.

Each document of a shard gets a number from the seed and the shard's place; the lowest numbers of
all are the sample. So it is the same however the shards are spread over workers, and a smaller
sample is the beginning of a larger one.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.report.tables import SamplesTable


@dataclass(frozen=True, slots=True)
class Pick:
    """One document.

    Attributes:
        rank: the lower, the sooner it is shown.
        shard: path of its tar.
        row: of the samples table.
    """

    rank: float
    shard: str
    row: dict[str, Any]


@dataclass(slots=True)
class Picks:
    """The documents to show, each list in the order of its ranks."""

    num_random: int = 0
    num_extreme: int = 0
    random: list[Pick] = field(default_factory=list)
    worst: list[Pick] = field(default_factory=list)
    best: list[Pick] = field(default_factory=list)

    def merge(self, other: "Picks") -> None:
        """Take over what ranks lower in another one."""
        self.random = _lowest(self.random + other.random, self.num_random)
        self.worst = _lowest(self.worst + other.worst, self.num_extreme)
        self.best = _lowest(self.best + other.best, self.num_extreme)


def pick(
    table: SamplesTable, shard: str, place: int, num_random: int, num_extreme: int, seed: int
) -> Picks:
    """The documents of one shard that may be among those of all."""
    chance = np.random.default_rng([seed, place]).random(table.num_documents)
    similarity = mean_similarity(table)
    known = np.flatnonzero(np.isfinite(similarity))
    found: dict[str, list[Pick]] = {}
    for name, ranks, among, count in (
        ("random", chance, np.arange(table.num_documents), num_random),
        ("worst", similarity, known, num_extreme),
        ("best", -similarity, known, num_extreme),
    ):
        order = among[np.argsort(ranks[among], kind="stable")[:count]]
        found[name] = [Pick(float(ranks[row]), shard, table.row(int(row))) for row in order]
    return Picks(num_random=num_random, num_extreme=num_extreme, **found)


def mean_similarity(table: SamplesTable) -> NDArray[np.float64]:
    """(documents,): of the images with their sentences; NaN where none is known."""
    values = np.array(table.similarity(), dtype=np.float64)
    known = ~np.isnan(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    offsets = np.array(table.offsets)
    counts = np.diff(np.concatenate(([0], np.cumsum(known)))[offsets])
    means = np.full(len(counts), np.nan)
    some = counts > 0
    means[some] = (sums[offsets[1:]] - sums[offsets[:-1]])[some] / counts[some]
    return means


def _lowest(picks: list[Pick], count: int) -> list[Pick]:
    picks.sort(key=lambda one: (one.rank, one.shard, one.row["key"]))
    return picks[:count]
