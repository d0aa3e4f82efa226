"""A step's batches, drawn while the device works on those of the step before.

A draw is the host's work: records are read, chosen and tokenised, pictures put together. It is done
when all of a step is queued and before the step's losses are read, so that a step takes as long as
the longer of the two, not as both. Ranks tell each other their counts there too.

What a draw finds wrong is raised when its step is taken, not before: the step that is under way is
finished, told and saved first. So are the positions of the streams those behind the last step that
was taken, whatever has been drawn since.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flamingo.data.batch import Batch
from flamingo.parallel.world import World
from flamingo.train.loaders import StreamLoader
from flamingo.train.step_counts import StepCounts, Stopwatch
from mmdata.errors import MMDataError


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """What a step is taken from.

    Attributes:
        batches: this rank's micro-batches of each stream.
        counts: of all ranks.
    """

    batches: dict[str, list[Batch]]
    counts: StepCounts


class StepPrefetcher:
    """Draws the steps of some loaders, with all ranks; one ahead of the step that is taken.

    Args:
        loaders: of the streams, by which each step is drawn.
        world: ranks of the run.
    """

    def __init__(self, loaders: Sequence[StreamLoader], world: World) -> None:
        self._loaders, self._world = loaders, world
        self._ahead: DrawnStep | MMDataError | None = None
        self._waiting: _DeviceWait | Stopwatch = Stopwatch()

    def take(self, step: int) -> DrawnStep:
        """What the step is taken from; the loaders then stand behind it.

        Args:
            step: from 1.

        Raises:
            MMDataError: a stream cannot go on, on this rank or another.
        """
        drawn, self._ahead = self._ahead, None
        if drawn is None:
            drawn = self._draw(step, Stopwatch())
        if isinstance(drawn, MMDataError):
            raise drawn
        for loader in self._loaders:
            if micro := drawn.batches[loader.name]:
                loader.position = micro[-1].position
        for damage in drawn.counts.damage:
            try:
                damage.check()
            except MMDataError as error:
                self._world.end_with(error)
        return drawn

    def prefetch(self, step: int) -> None:
        """Draw a step that will be taken; what is wrong with it is raised then."""
        try:
            self._ahead = self._draw(step, _DeviceWait(self._world.device))
        except MMDataError as error:
            self._ahead = error

    def wait_seconds(self) -> float:
        """How long the batch of the step that was taken last was waited for.

        The longest wait of all ranks, as they tell each other when they draw the next step; where
        no other has been drawn, this rank's own.
        """
        if isinstance(self._ahead, DrawnStep):
            return self._ahead.counts.wait_seconds
        return self._waiting.seconds

    def _draw(self, step: int, waiting: "_DeviceWait | Stopwatch") -> DrawnStep:
        batches: dict[str, list[Batch]] = {}

        def draw() -> StepCounts:
            with waiting:
                for loader in self._loaders:
                    batches[loader.name] = next(loader.steps)
            self._world.mark(step, "has drawn its batch")
            damage = [loader.damage() for loader in self._loaders]
            return StepCounts.of(batches, self._waiting.seconds, damage)

        self._world.mark(step, "draws its batch")
        counts = StepCounts.together(self._world.exchange(draw))
        self._waiting = waiting
        if self._world.parallel in ("ddp", "hsdp"):
            counts = counts.largest_last()
        return DrawnStep(batches, counts)


class _DeviceWait:
    """How long a device has nothing to do while the host is in here; a CPU is the host itself."""

    def __init__(self, device: torch.device) -> None:
        self._host = Stopwatch()
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._events = before, after

    def __enter__(self) -> "_DeviceWait":
        if self._events is not None:
            self._events[0].record()
        self._host.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._host.__exit__()
        if self._events is not None:
            self._events[1].record()

    @property
    def seconds(self) -> float:
        """To be asked once something was read that was queued behind: the device is past it."""
        if self._events is None:
            return self._host.seconds
        before, after = self._events
        seconds: float = before.elapsed_time(after) / 1000
        return seconds
