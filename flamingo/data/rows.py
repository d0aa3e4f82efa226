"""From the records of a rank's lanes to the sequences of its batches.

A sequence is one sample, or several that are packed within their lane. A lane's position is behind
its last sequence that was taken: packed, one sample behind that is read already, the one that did
not fit, and a resume reads it again.
"""

from collections import Counter
from dataclasses import dataclass

from flamingo.data.batch import SourcedExample
from flamingo.data.damage import DamageWatch
from flamingo.data.empty_stream import PassWatch
from flamingo.data.lane import LaneReader, RecordOutcome
from flamingo.data.mix import Share
from flamingo.data.order import LanePosition, Position
from flamingo.data.packing import NextFit


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence of a batch.

    Attributes:
        samples: several where they are packed.
        after: the lane's position after the last of them.
        drops: of the lane since the row before.
    """

    samples: list[SourcedExample]
    after: LanePosition
    drops: Counter[str]


class LaneRun:
    """The lanes of a rank while they are read, and who watches them.

    Attributes:
        lanes: of the rank.
        watch: for a stream that yields nothing.
        damage: for one that is damaged.
        drops: by reason; whoever tells them clears them.

    Args:
        pack: tokens of a sequence; None: a sample each.
    """

    def __init__(
        self, lanes: list[LaneReader], watch: PassWatch, damage: DamageWatch, pack: int | None
    ) -> None:
        self.lanes, self.watch, self.damage = lanes, watch, damage
        self.drops: Counter[str] = Counter()
        self._pack = pack
        self._open = {lane.number: NextFit[Row](pack or 0) for lane in lanes}
        self._skipped: dict[int, Counter[str]] = {lane.number: Counter() for lane in lanes}
        self._positions = {lane.number: lane.position for lane in lanes}

    def take(self, lane: LaneReader, number: int) -> list[Row]:
        """The lane's next sequences; fewer where it ends."""
        rows: list[Row] = []
        outcomes = lane.outcomes()
        while len(rows) < number:
            outcome = next(outcomes, None)
            if outcome is None:
                rows += self._rest(lane.number)
                break
            self.damage.saw(outcome)
            self.watch.saw(lane.number, outcome)
            self._skipped[lane.number] += outcome.plan.drops
            if outcome.is_used:
                rows += self._closed(lane.number, outcome)
        for row in rows:
            self.drops += row.drops
            self._positions[lane.number] = row.after
        return rows

    def _closed(self, lane: int, outcome: RecordOutcome) -> list[Row]:
        """The sequence that a sample is, or that it closes."""
        row = Row([outcome.sample], outcome.after, self._skipped[lane])
        self._skipped[lane] = Counter()
        if self._pack is None:
            return [row]
        return _joined(self._open[lane].add(row, len(outcome.plan.input_ids)))

    def _rest(self, lane: int) -> list[Row]:
        """The last sequence of a lane that has ended, and what was dropped behind it."""
        self.drops += self._skipped[lane]
        self._skipped[lane] = Counter()
        return _joined(self._open[lane].close())

    def position(self, share: Share) -> Position:
        """The position of the lanes that are read here; None for those of other ranks."""
        found: list[LanePosition | None] = [None] * share.num_lanes
        for lane, position in self._positions.items():
            found[lane] = position
        return Position(tuple(found))


def _joined(rows: list[Row]) -> list[Row]:
    """One row of several; none of none."""
    if not rows:
        return []
    samples = [sample for row in rows for sample in row.samples]
    return [Row(samples, rows[-1].after, sum((row.drops for row in rows), Counter()))]
