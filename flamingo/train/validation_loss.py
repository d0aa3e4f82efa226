"""The loss on data that is not trained on: every sample once, by sums of tokens.

A sum of cross-entropies and a number of target tokens add up over batches and over ranks, so the
mean is the same for any number of ranks and any batch size, the ragged last batch included. Ranks
may have different numbers of batches: where the model is sharded, those that are done run blank
passes until all are.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from flamingo.data.batch import Batch, blank_batch
from flamingo.data.stream import Stream
from flamingo.parallel.world import World
from flamingo.telemetry.jsonl import finite, forget_after, read_log
from flamingo.telemetry.names import VALIDATION_NAME
from flamingo.telemetry.steps import perplexity
from flamingo.train.loop import Trainer
from mmdata.errors import UserError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A loss that can be added up.

    Attributes:
        loss_sum: cross-entropy over all target tokens, in nats.
        num_targets: target tokens.
        num_samples: documents or pairs.
    """

    loss_sum: float = 0.0
    num_targets: int = 0
    num_samples: int = 0

    def __add__(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(
            self.loss_sum + other.loss_sum,
            self.num_targets + other.num_targets,
            self.num_samples + other.num_samples,
        )

    @property
    def loss(self) -> float:
        """Nats per target token."""
        return self.loss_sum / max(1, self.num_targets)

    @property
    def perplexity(self) -> float:
        """exp of the loss."""
        return perplexity(self.loss)


def evaluate(trainer: Trainer, stream: Stream, world: World | None = None) -> Evaluation:
    """The loss of the model as it is on this rank's part of a validation stream.

    Raises:
        MMDataError: the stream cannot be read, on this rank or another.
    """
    world = world or World()
    loss: Tensor | float = 0.0
    num_targets = num_samples = 0
    trainer.model.eval()
    try:
        with torch.no_grad():
            width = trainer.model.feature_width if stream.config.features is not None else None
            for batch in _in_step(stream.batches(), world, width):
                world.mark(trainer.done, "measures the validation loss")
                loss = loss + trainer.sum_loss(batch).double()
                num_targets += batch.num_targets
                num_samples += len(batch.keys)
    finally:
        trainer.model.train()
    return Evaluation(float(loss), num_targets, num_samples)  # the one read from the device


def _in_step(batches: Iterator[Batch], world: World, feature_width: int | None) -> Iterator[Batch]:
    """A rank's batches; on a sharded model then blank ones, until no rank has any left."""
    if not world.is_sharded:
        yield from batches
        return
    while True:
        drawn: list[Batch] = []

        def draw(into: list[Batch] = drawn) -> bool:
            into.extend(islice(batches, 1))
            return bool(into)

        if not any(world.exchange(draw)):
            return
        yield drawn[0] if drawn else blank_batch(feature_width)


class Validation:
    """Measures the validation streams every so many steps, and writes it down.

    Args:
        folder: of the run.
        streams: to measure on.
        every: steps; None: before the first step and at the end only.
        done: steps that the run has taken already.
        world: ranks of the run; every one has to make this, and to measure.
    """

    def __init__(
        self,
        folder: str,
        streams: Iterable[Stream],
        *,
        every: int | None,
        done: int,
        world: World | None = None,
    ) -> None:
        self._path = os.path.join(folder, VALIDATION_NAME)
        self._streams, self._every, self._world = list(streams), every, world or World()
        measured: set[int] = set()
        if self._world.is_first:
            forget_after(self._path, done)
            if os.path.exists(self._path):
                measured = {line["step"] for line in read_log(self._path)}
        self._measured: set[int] = self._world.gather(measured)[0]

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether the model is to be measured after this step (0: before the first)."""
        if not self._streams or step in self._measured:
            return False
        return step == 0 or is_last or (self._every is not None and step % self._every == 0)

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Each stream's loss now, over all ranks; appended to the run's record by the first.

        Raises:
            UserError: a stream yields nothing.
            MMDataError: it cannot be read, on this rank or another.
        """
        found = {stream.config.name: self._total(trainer, stream) for stream in self._streams}
        for name, one in found.items():
            if not one.num_targets:
                error = UserError(f"stream {name}: no target tokens; nothing to measure")
                self._world.end_with(error)
        self._measured.add(trainer.done)
        line = {
            "step": trainer.done,
            "losses": {name: one.loss for name, one in found.items()},
            "perplexity": {name: one.perplexity for name, one in found.items()},
            "tokens": {name: one.num_targets for name, one in found.items()},
            "samples": {name: one.num_samples for name, one in found.items()},
        }
        if self._world.is_first:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(finite(line)) + "\n")
        return {name: one.loss for name, one in found.items()}

    def _total(self, trainer: Trainer, stream: Stream) -> Evaluation:
        """The loss of a stream, from the parts that all ranks have of it."""
        if self._world.is_sharded:  # whose ranks speak to each other in every pass
            parts = self._world.gather(evaluate(trainer, stream, self._world))
        else:
            parts = self._world.exchange(lambda: evaluate(trainer, stream))
        return sum(parts, Evaluation())
