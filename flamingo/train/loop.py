"""One optimizer step, and the run as a sequence of them.

The loss of a step is the sum over streams of multiplier x (cross-entropy summed over the stream's
target tokens of the global batch) / (their number). So the micro-batches of a step are drawn first
and their targets counted, and how the batch is cut into micro-batches changes nothing. Gradients
are clipped once, by their global norm, before the optimizer's step.

Several ranks tell each other their counts before the first backward (`step_counts`), run equally
many passes of each stream, and scale their losses by the number of ranks, since DDP and FSDP
average gradients. The sums of the losses are added up beside the gradient's norm, so that whether a
step is skipped comes out the same on every rank, by the one read from the device that a step has.

Before that read, while the device works, the next step's batches are drawn (`prefetch`). An
optimizer that can find out by itself whether all is finite has its step queued before it too
(`queue_step`); any other steps behind it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flamingo.data.batch import Batch, blank_batch
from flamingo.data.merge import merge_batches
from flamingo.models.family import TrainableModel
from flamingo.modules.placement import to_device
from flamingo.options.run import RunOptions
from flamingo.parallel.world import World
from flamingo.parallel.wrap import Wrapped
from flamingo.telemetry.steps import StepReport
from flamingo.train.loaders import StreamLoader
from flamingo.train.optim import clip_gradients, queue_step, set_learning_rate
from flamingo.train.precision import LossScale, autocast
from flamingo.train.prefetch import DrawnStep, StepPrefetcher
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
    merges_streams: bool = False
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
            counts = drawn.counts
            self.world.mark(step, "computes")
            rate = self._learning_rate()
            set_learning_rate(self.optimizer, rate)
            found = self._queue_passes(drawn)
            has_stepped = queue_step(self.optimizer, found)
            if has_stepped:
                self.watch("after optimizer")
                self.optimizer.zero_grad(set_to_none=True)
            if step < self.total_steps:
                self._steps.prefetch(step + 1)
            self.world.mark(step, "reads its losses")
            norm_sum, *values = read(found)
            norm_value = norm_sum / self.world.size
            losses = {
                loader.name: value / max(1, counts.targets[loader.name])
                for loader, value in zip(self.loaders, values, strict=True)
            }
            is_finite = math.isfinite(norm_value) and all(map(math.isfinite, losses.values()))
            if is_finite and not has_stepped:
                self.optimizer.step()
                self.watch("after optimizer")
            self.optimizer.zero_grad(set_to_none=True)
            self._count(norm_value, losses, is_finite=is_finite)
        return StepReport(
            step=self.done,
            losses=losses,
            learning_rate=rate,
            gradient_norm=norm_value,
            skipped=not is_finite,
            streams=counts.streams,
            drops=counts.drops,
            wait_seconds=self._steps.wait_seconds(),
            seconds=working.seconds,
        )

    def _queue_passes(self, drawn: DrawnStep) -> Tensor:
        """Queue the passes and the clipping of a step; returns what is to be read of it.

        Of all ranks together: the gradient's norm before clipping, as often as there are ranks, and
        the sum of each stream's loss. Double precision, on the device.
        """
        self.watch("before forward")
        sums = self.backward(drawn.batches, drawn.counts)
        self.watch("after backward")
        trained = (p for group in self.optimizer.param_groups for p in group["params"])
        norm = clip_gradients(trained, self.options.clip_norm, self.loss_scale.value)
        norm = to_device(norm, self.world.device).double()
        # The norm is the same on every rank; it is added up so that nobody can decide alone.
        return self.world.add_up(torch.stack([norm, *sums]))

    def _learning_rate(self) -> float:
        factor = learning_rate_factor(
            self.done,
            schedule=self.options.lr_scheduler,
            warmup_steps=self.options.warmup_steps,
            total_steps=self.total_steps,
        )
        return self.options.learning_rate * factor

    def backward(self, batches: dict[str, list[Batch]], counts: StepCounts) -> list[Tensor]:
        """Backward through a step's micro-batches; each stream's sum of losses here, 0-d.

        Args:
            batches: this rank's micro-batches of each stream. They are let go once their passes are
                queued: the next step's come in their place.
            counts: of all ranks, in the order that streams are to be run in; those without targets
                are left out.
        """
        totals = {
            one.name: torch.zeros((), dtype=torch.float64, device=self.world.device)
            for one in self.loaders
        }
        by_name = {one.name: one for one in self.loaders}
        running = [by_name[name] for name, targets in counts.targets.items() if targets]
        together = [running] if self.merges_streams and running else [[one] for one in running]
        for loaders in together:
            queues = {one.name: batches.pop(one.name) for one in loaders}
            for left in reversed(range(max(counts.passes[name] for name in queues))):
                given = {name: queue.pop(0) for name, queue in queues.items() if queue}
                is_last = loaders is together[-1] and not left
                self._pass(loaders, given, totals, counts, is_last=is_last)
        return list(totals.values())

    def _pass(
        self,
        loaders: list[StreamLoader],
        given: dict[str, Batch],
        totals: dict[str, Tensor],
        counts: StepCounts,
        *,
        is_last: bool,
    ) -> None:
        """A micro-batch of each of some streams through the model, forward and backward.

        Args:
            loaders: whose micro-batches go through together; a rank may have none of some.
            given: this rank's, by stream; empty where other ranks alone have any.
            totals: the sum of each stream's losses, which is added to.
            counts: of the step.
            is_last: whether it is the step's last pass.
        """
        if given:
            batch = merge_batches(list(given.values()))
        else:
            batch = blank_batch(self.model.feature_width if loaders[0].has_features else None)
        scales = {
            one.name: one.multiplier * self.world.size / counts.targets[one.name] for one in loaders
        }
        with self.wrapped.training_pass(is_last=is_last):
            found = self.pass_loss(self.wrapped.runner, batch)
            self.watch("after forward")
            # A blank batch has no target, so its loss is 0 whichever stream it counts for.
            names = list(given) or [loaders[0].name]
            losses = dict(zip(names, found.unbind() if found.dim() else [found], strict=True))
            weighted = [losses[name] * (scales[name] * self.loss_scale.value) for name in names]
            sum(weighted[1:], weighted[0]).backward()
        for name, loss in losses.items():
            totals[name] += loss.detach()

    def sum_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy summed over the micro-batch's target tokens, 0-d; to measure by."""
        return self.pass_loss(self.model, batch)

    def pass_loss(self, through: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of a micro-batch, 0-d, through what a pass calls for the model.

        Of one of several streams one sum a stream.
        """
        with autocast(self.options, self.world.device):
            return self.model.loss(batch, self.world.device, through=through)

    def _count(self, norm: float, losses: dict[str, float], *, is_finite: bool) -> None:
        """Count the step, which left the weights as they were if something was not finite."""
        self._skipped_in_a_row = 0 if is_finite else self._skipped_in_a_row + 1
        self.skipped_steps += not is_finite
        self.loss_scale.update(finite=is_finite)
        self.done += 1
        if self._skipped_in_a_row >= self.options.max_skipped_steps:
            told = ", ".join(f"{name} {loss}" for name, loss in losses.items())
            error = NotFiniteError(
                f"step {self.done}: {self._skipped_in_a_row} steps in a row were not finite (loss "
                f"{told}, gradient norm {norm}); lower --learning-rate or look at the data"
            )
            self.world.end_with(error)
