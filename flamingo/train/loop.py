"""One optimizer step, and the run as a sequence of them.

The loss of a step is the sum over streams of multiplier x (cross-entropy summed over the stream's
target tokens of the global batch) / (their number). So the micro-batches of a step are drawn first
and their targets counted, and how the batch is cut into micro-batches changes nothing. Gradients
are clipped once, by their global norm, before the optimizer's step.

For several ranks: the counts want one all-reduce before the first backward, the local losses a
factor of the world size (DDP averages), and the decision to skip one more.
"""

import math
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flamingo.data.batch import Batch
from flamingo.data.decode import to_input
from flamingo.data.order import Position
from flamingo.model.flamingo import Flamingo
from flamingo.model.outputs import find_target_positions
from flamingo.train.config import Train
from flamingo.train.optim import clip_gradients, set_learning_rate
from flamingo.train.schedule import learning_rate_factor
from flamingo.train.telemetry import StepReport, Stopwatch
from mmdata.errors import MMDataError


class NotFiniteError(MMDataError):
    """Too many steps in a row had a loss or gradient that is not finite."""

    exit_code = 1


@dataclass(slots=True)
class StreamFeed:
    """A stream as the trainer sees it.

    Attributes:
        name: in logs.
        steps: endless: the micro-batches of each step.
        multiplier: of its loss.
        position: after the last step that was taken.
    """

    name: str
    steps: Generator[list[Batch], None, None]
    multiplier: float
    position: Position


@dataclass(frozen=True, slots=True)
class Pixels:
    """How uint8 pixels become the vision tower's input.

    Attributes:
        mean: per channel, of pixels scaled to 0-1.
        std: per channel, likewise.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(slots=True)
class Trainer:
    """Model, optimizer and feeds; `step` takes one optimizer step."""

    model: Flamingo
    optimizer: torch.optim.Optimizer
    feeds: list[StreamFeed]
    options: Train
    pixels: Pixels
    device: torch.device
    total_steps: int
    done: int = 0
    skipped_steps: int = 0
    _skipped_in_a_row: int = field(default=0)

    def step(self) -> StepReport:
        """Draw the global batch, run it, step the optimizer.

        Raises:
            NotFiniteError: --max-skipped-steps were not finite, one after the other.
        """
        waiting, working = Stopwatch(), Stopwatch()
        with working:
            with waiting:
                drawn = {feed.name: self._draw(feed) for feed in self.feeds}
            rate = self._learning_rate()
            set_learning_rate(self.optimizer, rate)
            losses = {feed.name: self._backward(feed, drawn[feed.name]) for feed in self.feeds}
            trained = (p for group in self.optimizer.param_groups for p in group["params"])
            norm = clip_gradients(trained, self.options.clip_norm)
            # The one read from the device: everything before it was only queued.
            norm_value, *values = torch.stack([norm, *losses.values()]).tolist()
            finite = self._finish(norm_value, dict(zip(losses, values, strict=True)))
        batches = [batch for micro in drawn.values() for batch in micro]
        return StepReport(
            step=self.done,
            losses=dict(zip(losses, values, strict=True)),
            learning_rate=rate,
            gradient_norm=norm_value,
            skipped=not finite,
            samples=sum(len(batch.keys) for batch in batches),
            tokens=sum(int(batch.attention_mask.sum()) for batch in batches),
            images=sum(batch.num_images for batch in batches),
            drops=sum((batch.drops for batch in batches), Counter()),
            wait_seconds=waiting.seconds,
            seconds=working.seconds,
        )

    def _draw(self, feed: StreamFeed) -> list[Batch]:
        micro = next(feed.steps)
        if micro:
            feed.position = micro[-1].position
        return micro

    def _learning_rate(self) -> float:
        factor = learning_rate_factor(
            self.done,
            schedule=self.options.lr_scheduler,
            warmup_steps=self.options.warmup_steps,
            total_steps=self.total_steps,
        )
        return self.options.learning_rate * factor

    def _backward(self, feed: StreamFeed, micro: list[Batch]) -> Tensor:
        """Backward through a stream's micro-batches; returns its mean loss, 0-d, detached."""
        num_targets = sum(batch.num_targets for batch in micro)
        total = torch.zeros((), device=self.device)
        if num_targets == 0:
            return total
        for batch in micro:
            loss = self.sum_loss(batch)
            (loss * (feed.multiplier / num_targets)).backward()
            total += loss.detach()
        return total / num_targets

    def sum_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the micro-batch's target tokens, 0-d."""
        documents = batch.document_index
        with self._autocast():
            output = self.model(
                input_ids=self._moved(batch.input_ids),
                attention_mask=self._moved(batch.attention_mask),
                labels=self._moved(batch.labels),
                images=self._input(batch),
                features=None if batch.features is None else self._moved(batch.features),
                images_per_sample=batch.images_per_sample,
                document_index=None if documents is None else self._moved(documents),
                target_positions=self._moved(find_target_positions(batch.labels)),
                loss_reduction="sum",
                keep_graph=True,
                check=False,
            )
        return output.loss

    def _input(self, batch: Batch) -> Tensor | None:
        """What the vision tower sees, made on the device; None where features stand for it."""
        if batch.pixels is None:
            return None
        return to_input(
            self._moved(batch.pixels),
            self.pixels.mean,
            self.pixels.std,
            mirrored=None if batch.mirrored is None else self._moved(batch.mirrored),
            exact=self.options.exact_preprocess,
        )

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[object]:
        if not self.options.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _finish(self, norm: float, losses: dict[str, float]) -> bool:
        """Step the optimizer if all is finite; else leave the weights and count."""
        finite = math.isfinite(norm) and all(map(math.isfinite, losses.values()))
        if finite:
            self.optimizer.step()
            self._skipped_in_a_row = 0
        else:
            self.skipped_steps += 1
            self._skipped_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self._skipped_in_a_row >= self.options.max_skipped_steps:
            told = ", ".join(f"{name} {loss}" for name, loss in losses.items())
            raise NotFiniteError(
                f"step {self.done}: {self._skipped_in_a_row} steps in a row were not finite (loss "
                f"{told}, gradient norm {norm}); lower --learning-rate or look at the data"
            )
        return finite
