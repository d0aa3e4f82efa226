"""How values are distributed, in bins that are fixed before the first value is seen.

Fixed bins make the memory constant, and parts that workers counted add up to what one would have
counted. They are fine (0.005 of a cosine, an eighth of an octave of bytes); `bars` joins them to
what a chart can show. So a median is right to within a bin, while least, greatest and mean are
exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scale = Literal["count", "cosine", "octave"]
Values = Sequence[float] | NDArray[np.float64] | NDArray[np.int64]

_MAX_COUNT = 4096
_PER_OCTAVE = 8
_PER_UNIT = 200  # bins of a cosine: 0.005
_MIN_BARS, _MAX_BARS = 8, 24
#: The last values are shown in one bar: a single document of 900 sentences would flatten all else.
_TAIL = 0.995
#: How many fine bins may make up a bar.
_STEPS: dict[Scale, Sequence[int]] = {
    "count": (1, 2, 5, 10, 20, 50, 100, 200, 500),
    "cosine": (2, 4, 5, 10, 20, 40),
    "octave": (1, 2, 4, 8, 16),
}
_EDGES: dict[Scale, NDArray[np.float64]] = {
    "count": np.arange(_MAX_COUNT + 2, dtype=np.float64),
    "cosine": np.arange(-2 * _PER_UNIT, 2 * _PER_UNIT + 1) / _PER_UNIT,
    "octave": 2.0 ** (np.arange(44 * _PER_OCTAVE + 1) / _PER_OCTAVE),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """Values in [low, high): how many. The last bar of a chart may stand for all above, too."""

    low: float
    high: float
    count: int
    open_ended: bool = False


@dataclass(slots=True)
class Distribution:
    """Counts in fixed bins, and what is exact.

    Attributes:
        scale: `count` whole numbers from 0, `cosine` -2 to 2 (a margin is a difference of two),
            `octave` 1 to 2**44 in equal ratios.
    """

    scale: Scale
    size: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.bins):
            self.bins = np.zeros(len(_EDGES[self.scale]) - 1, dtype=np.int64)

    def add(self, values: Values) -> None:
        """Count values; those beyond the bins go into the first or the last of them."""
        array = np.asarray(values, dtype=np.float64)
        array = array[np.isfinite(array)]
        if not len(array):
            return
        edges = _EDGES[self.scale]
        # A value that stands on an edge but for its last bit belongs above it.
        places = np.searchsorted(edges, array + 1e-9, side="right") - 1
        places = np.clip(places, 0, len(self.bins) - 1)
        self.bins += np.bincount(places, minlength=len(self.bins))
        self.size += len(array)
        self.total += float(array.sum())
        self.least = min(self.least, float(array.min()))
        self.greatest = max(self.greatest, float(array.max()))

    def merge(self, other: "Distribution") -> None:
        """Take over what another one counted."""
        self.bins = self.bins + other.bins
        self.size += other.size
        self.total += other.total
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)

    @property
    def mean(self) -> float:
        """NaN without values."""
        return self.total / self.size if self.size else math.nan

    def quantile(self, share: float) -> float:
        """The value below which a share of the values lies, to within a bin; NaN without values."""
        if not self.size:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.bins), max(1.0, share * self.size)))
        edges = _EDGES[self.scale]
        if self.scale == "count":
            value = float(edges[place])
        else:
            value = float(edges[place] + edges[place + 1]) / 2
        return min(max(value, self.least), self.greatest)

    def share_below(self, value: float) -> float:
        """Share of the values in bins that end at or below a value; 0 without values."""
        if not self.size:
            return 0.0
        last = int(np.searchsorted(_EDGES[self.scale], value + 1e-9, side="right")) - 1
        return float(self.bins[: max(0, last)].sum()) / self.size

    def bars(self) -> list[Bar]:
        """The occupied range in 8 to 24 bars of equal width (of equal ratio, in octaves).

        A last bar may stand for the largest values, whatever they are.
        """
        if not self.size:
            return []
        occupied = np.flatnonzero(self.bins)
        first, last = int(occupied[0]), int(occupied[-1])
        tail = int(np.searchsorted(np.cumsum(self.bins), _TAIL * self.size))
        is_cut = last - tail > max(4, tail - first)
        last = tail if is_cut else last
        step = self._step(first, last)
        start = first // step * step
        if not is_cut:
            start, last = self._widened(start, last, step)
        edges = _EDGES[self.scale]
        found = []
        for low in range(start, last + 1, step):
            high = min(low + step, len(self.bins))
            count = int(self.bins[low:high].sum())
            found.append(Bar(float(edges[low]), float(edges[high]), count))
        if is_cut:
            count = self.size - sum(bar.count for bar in found)
            found.append(Bar(found[-1].high, self.greatest, count, open_ended=True))
        return found

    def _widened(self, start: int, last: int, step: int) -> tuple[int, int]:
        """First and last bin with empty bars around few: one bar alone would fill the chart."""
        missing = max(0, _MIN_BARS - (last - start) // step - 1)
        before = 0 if self.scale == "count" else min(missing // 2, start // step)
        last += (missing - before) * step
        return start - before * step, min(last, len(self.bins) - 1)

    def _step(self, first: int, last: int) -> int:
        steps = _STEPS[self.scale]
        fitting = [step for step in steps if last // step - first // step < _MAX_BARS]
        return fitting[0] if fitting else steps[-1]
