"""What ranks tell each other of a step before its first backward.

The loss is divided by the target tokens of the global batch, so those are counted first; in the
same exchange go how many passes each rank would run (all run as many: DDP and FSDP wait for each
other in each) and what the log says of the step.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flamingo.data.batch import Batch
from flamingo.data.counts import StreamCounts
from flamingo.data.damage import DamageCount


@dataclass(frozen=True, slots=True)
class StepCounts:
    """A rank's part of a step, or the step of all ranks.

    Attributes:
        targets: target tokens of each stream, in the order in which the streams' passes run.
        passes: micro-batches of each stream; together: of the rank that has most.
        streams: what each stream gave, for the log.
        drops: documents and images that selection left out, by reason.
        wait_seconds: spent waiting for data; together: of the rank that waited longest.
        damage: of each stream, since the run began.
    """

    targets: dict[str, int]
    passes: dict[str, int]
    streams: dict[str, StreamCounts] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    wait_seconds: float = 0.0
    damage: tuple[DamageCount, ...] = ()

    @classmethod
    def of(
        cls,
        drawn: Mapping[str, Sequence[Batch]],
        wait_seconds: float,
        damage: Iterable[DamageCount] = (),
    ) -> "StepCounts":
        """The counts of the micro-batches that were drawn on this rank."""
        batches = [batch for micro in drawn.values() for batch in micro]
        return cls(
            targets={name: sum(b.num_targets for b in micro) for name, micro in drawn.items()},
            passes={name: len(micro) for name, micro in drawn.items()},
            streams={name: StreamCounts.of(micro) for name, micro in drawn.items()},
            drops=sum((batch.drops for batch in batches), Counter()),
            wait_seconds=wait_seconds,
            damage=tuple(damage),
        )

    @classmethod
    def together(cls, parts: Sequence["StepCounts"]) -> "StepCounts":
        """The counts of all ranks together."""
        targets = {name: sum(part.targets[name] for part in parts) for name in parts[0].targets}
        passes = {name: max(part.passes[name] for part in parts) for name in targets}
        # A stream without targets runs no pass; else ranks with fewer batches run blank ones.
        blanks = {
            name: sum(most - part.passes[name] for part in parts) if targets[name] else 0
            for name, most in passes.items()
        }
        return cls(
            targets=targets,
            passes=passes,
            streams={
                name: sum(
                    (part.streams[name] for part in parts),
                    StreamCounts(blank_images=blanks[name]),
                )
                for name in parts[0].streams
            },
            drops=sum((part.drops for part in parts), Counter()),
            wait_seconds=max(part.wait_seconds for part in parts),
            damage=tuple(
                sum(of_ranks[1:], of_ranks[0])
                for of_ranks in zip(*(part.damage for part in parts), strict=True)
            ),
        )

    def largest_last(self) -> "StepCounts":
        """These counts, with the passes of the stream last that has most text in a pass.

        Ranks that add up gradients in the last pass do so while its backward pass goes on.
        """
        size = {
            name: self.streams[name].positions / max(1, self.passes[name]) for name in self.targets
        }
        order = sorted(self.targets, key=lambda name: size[name])
        return replace(self, targets={name: self.targets[name] for name in order})


class Stopwatch:
    """Adds up the time spent in one kind of work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
