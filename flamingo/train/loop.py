"""One optimizer step, and the run as a sequence of them.

The loss of a step is the sum over streams of multiplier x (cross-entropy summed over the stream's
target tokens of the global batch) / (their number). So the micro-batches of a step are drawn first
and their targets counted, and how the batch is cut into micro-batches changes nothing. Gradients
are clipped once, by their global norm, before the optimizer's step.

Several ranks tell each other their counts before the first backward (`step_counts`), run equally
many passes of each stream, and scale their losses by the number of ranks, since DDP and FSDP
average gradients. The sums of the losses are added up beside the gradient's norm, so that whether a
step is skipped comes out the same on every rank, by the one read from the device that a step has.

Before that read, while the device works, the next step's batches are drawn (`prefetch`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flamingo.data.batch import Batch, blank_batch
from flamingo.models.family import TrainableModel
from flamingo.options.run import RunOptions
from flamingo.parallel.world import World
from flamingo.parallel.wrap import Wrapped
from flamingo.telemetry.steps import StepReport
from flamingo.train.loaders import StreamLoader
from flamingo.train.optim import clip_gradients, set_learning_rate
from flamingo.train.precision import LossScale, autocast
from flamingo.train.prefetch import StepPrefetcher
from flamingo.train.schedule import learning_rate_factor
from flamingo.train.step_counts import StepCounts, Stopwatch
from mmdata.errors import MMDataError

#: Moments of a step, as `Trainer.watch` is told of them; the second one in each micro-batch.
Phase = Literal["before forward", "after forward", "after backward", "after optimizer"]
PHASES: tuple[Phase, ...] = get_args(Phase)


def unwatched(phase: Phase) -> None:
    """Nobody measures."""


def read(values: Tensor) -> list[float]:
    """The one read from the device that a step has: all before it was only queued."""
    found: list[float] = values.tolist()
    return found


class NotFiniteError(MMDataError):
    """Too many steps in a row had a loss or gradient that is not finite."""

    exit_code = 1


@dataclass(slots=True)
class Trainer:
    """Model, optimizer and loaders; `step` takes one optimizer step, with all ranks."""

    wrapped: Wrapped
    optimizer: torch.optim.Optimizer
    loaders: list[StreamLoader]
    options: RunOptions
    total_steps: int
    world: World = field(default_factory=World)
    done: int = 0
    skipped_steps: int = 0
    loss_scale: LossScale = field(default_factory=LossScale)
    watch: Callable[[Phase], None] = unwatched
    _skipped_in_a_row: int = field(default=0)
    _steps: StepPrefetcher = field(init=False)

    def __post_init__(self) -> None:
        self._steps = StepPrefetcher(self.loaders, self.world)

    @property
    def model(self) -> TrainableModel:
        """The model itself."""
        return self.wrapped.model

    def step(self) -> StepReport:
        """Run the global batch and step the optimizer; draw the next batch on the way.

        Raises:
            NotFiniteError: --max-skipped-steps were not finite, one after the other.
            MMDataError: a stream cannot go on, on this rank or another.
        """
        working, step = Stopwatch(), self.done + 1
        with working:
            drawn = self._steps.take(step)
            batches, counts = drawn.batches, drawn.counts
            self.world.mark(step, "computes")
            rate = self._learning_rate()
            set_learning_rate(self.optimizer, rate)
            self.watch("before forward")
            # Batches are let go once their passes are queued: the next step's come in their place.
            sums = [self.backward(one, batches.pop(one.name), counts) for one in self.loaders]
            trained = (p for group in self.optimizer.param_groups for p in group["params"])
            self.watch("after backward")
            norm = clip_gradients(trained, self.options.clip_norm, self.loss_scale.value)
            # The norm is the same on every rank; it is added up so that nobody can decide alone.
            found = self.world.add_up(torch.stack([norm.to(sums[0]), *sums]))
            if step < self.total_steps:
                self._steps.prefetch(step + 1)
            self.world.mark(step, "reads its losses")
            norm_sum, *values = read(found)
            norm_value = norm_sum / self.world.size
            losses = {
                loader.name: value / max(1, counts.targets[loader.name])
                for loader, value in zip(self.loaders, values, strict=True)
            }
            finite = self._finish(norm_value, losses)
        return StepReport(
            step=self.done,
            losses=losses,
            learning_rate=rate,
            gradient_norm=norm_value,
            skipped=not finite,
            streams=counts.streams,
            drops=counts.drops,
            wait_seconds=self._steps.wait_seconds(),
            seconds=working.seconds,
        )

    def _learning_rate(self) -> float:
        factor = learning_rate_factor(
            self.done,
            schedule=self.options.lr_scheduler,
            warmup_steps=self.options.warmup_steps,
            total_steps=self.total_steps,
        )
        return self.options.learning_rate * factor

    def backward(self, loader: StreamLoader, micro: list[Batch], counts: StepCounts) -> Tensor:
        """Backward through a stream's micro-batches; returns the sum of its loss here, 0-d."""
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        num_targets = counts.targets[loader.name]
        if num_targets == 0:
            return total
        scale = loader.multiplier * self.world.size / num_targets
        passes = counts.passes[loader.name]
        width = self.model.feature_width if loader.has_features else None
        batches = [*micro, *(blank_batch(width) for _ in range(passes - len(micro)))]
        for number, batch in enumerate(batches):
            is_last = (loader.name, number) == counts.last_pass
            with self.wrapped.training_pass(is_last=is_last):
                loss = self.pass_loss(self.wrapped.runner, batch)
                self.watch("after forward")
                (loss * (scale * self.loss_scale.value)).backward()
            total += loss.detach()
        return total

    def sum_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the micro-batch's target tokens, 0-d; to measure by."""
        return self.pass_loss(self.model, batch)

    def pass_loss(self, through: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of a micro-batch, 0-d, through what a pass calls for the model."""
        with autocast(self.options, self.world.device):
            return self.model.loss(batch, self.world.device, through=through)

    def _finish(self, norm: float, losses: dict[str, float]) -> bool:
        """Step the optimizer if all is finite; else leave the weights and count."""
        finite = math.isfinite(norm) and all(map(math.isfinite, losses.values()))
        if finite:
            self.optimizer.step()
            self.watch("after optimizer")
            self._skipped_in_a_row = 0
        else:
            self.skipped_steps += 1
            self._skipped_in_a_row += 1
        self.loss_scale.update(finite=finite)
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self._skipped_in_a_row >= self.options.max_skipped_steps:
            told = ", ".join(f"{name} {loss}" for name, loss in losses.items())
            error = NotFiniteError(
                f"step {self.done}: {self._skipped_in_a_row} steps in a row were not finite (loss "
                f"{told}, gradient norm {norm}); lower --learning-rate or look at the data"
            )
            self.world.end_with(error)
        return finite
