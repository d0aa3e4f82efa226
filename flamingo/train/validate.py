"""The loss on data that is not trained on: every sample once, by sums of tokens.

A sum of cross-entropies and a number of target tokens add up over batches and over ranks, so the
mean is the same for any number of ranks and any batch size, the ragged last batch included.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from flamingo.data.stream import Stream
from flamingo.train.loop import Trainer
from flamingo.train.telemetry import forget_after, read_log
from mmdata.errors import UserError

VALIDATION_NAME = "validation.jsonl"


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


def evaluate(trainer: Trainer, stream: Stream) -> Evaluation:
    """The loss of the model as it is on this rank's part of a validation stream."""
    found = Evaluation()
    trainer.model.eval()
    try:
        with torch.no_grad():
            for batch in stream.batches():
                loss = float(trainer.sum_loss(batch))
                found += Evaluation(loss, batch.num_targets, len(batch.keys))
    finally:
        trainer.model.train()
    return found


class Validation:
    """Measures the validation streams every so many steps, and writes it down.

    Args:
        folder: of the run.
        streams: to measure on.
        every: steps; None: before the first step and at the end only.
        done: steps that the run has taken already.
    """

    def __init__(
        self, folder: str, streams: Iterable[Stream], *, every: int | None, done: int
    ) -> None:
        self._path = os.path.join(folder, VALIDATION_NAME)
        self._streams, self._every = list(streams), every
        forget_after(self._path, done)
        self._measured = {line["step"] for line in _lines(self._path)}

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether the model is to be measured after this step (0: before the first)."""
        if not self._streams or step in self._measured:
            return False
        return step == 0 or is_last or (self._every is not None and step % self._every == 0)

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Each stream's loss now; appended to the run's record.

        Raises:
            UserError: a stream yields nothing.
        """
        found = {stream.config.name: evaluate(trainer, stream) for stream in self._streams}
        for name, one in found.items():
            if not one.num_targets:
                raise UserError(f"stream {name}: no target tokens; nothing to measure")
        self._measured.add(trainer.done)
        line = {
            "step": trainer.done,
            "losses": {name: one.loss for name, one in found.items()},
            "tokens": {name: one.num_targets for name, one in found.items()},
            "samples": {name: one.num_samples for name, one in found.items()},
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return {name: one.loss for name, one in found.items()}


def _lines(path: str) -> list[dict[str, Any]]:
    return read_log(path) if os.path.exists(path) else []
