"""The loss at the start and at the end of a run: one definition, wherever it is told.

A single step's loss is noise, so it is the mean of the first and of the last five steps that were
not skipped (of a run of fewer than ten: of its halves), on the data that is trained on. The end of
a run on the console, the demo, `mmdata train-report` and `mmdata recipes --compare` all tell these
numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Steps that a loss at the start or the end is the mean of.
END_STEPS = 5


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """A training loss, in nats a token, and the steps that it is the mean of."""

    loss: float
    first: int
    last: int

    @property
    def num_steps(self) -> int:
        """From the first to the last of them."""
        return self.last - self.first + 1

    @property
    def of(self) -> str:
        """The steps, in words."""
        if self.first == self.last:
            return f"step {self.first:,}"
        return f"mean of steps {self.first:,} to {self.last:,}"

    def __str__(self) -> str:
        return f"{self.loss:.4f} ({self.of})"


def end_losses(points: Sequence[tuple[float, float]]) -> tuple[MeanLoss, MeanLoss] | None:
    """The loss at the start and at the end; None where no step has a finite one.

    Args:
        points: (step, loss) of the steps that were not skipped, in order.
    """
    finite = [(int(step), loss) for step, loss in points if math.isfinite(loss)]
    if not finite:
        return None
    size = max(1, min(END_STEPS, len(finite) // 2))
    return _mean(finite[:size]), _mean(finite[-size:])


def end_losses_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[MeanLoss, MeanLoss]]:
    """The losses at the start and at the end of each stream, from lines of `metrics.jsonl`."""
    used = [line for line in lines if not line["skipped"]]
    points: dict[str, list[tuple[float, float]]] = {}
    for line in used:
        for name, loss in line["losses"].items():
            if loss is not None:  # so a log has what is not finite
                points.setdefault(name, []).append((line["step"], loss))
    found = {name: end_losses(of_stream) for name, of_stream in points.items()}
    return {name: ends for name, ends in found.items() if ends is not None}


def _mean(points: Sequence[tuple[int, float]]) -> MeanLoss:
    return MeanLoss(sum(loss for _, loss in points) / len(points), points[0][0], points[-1][0])
