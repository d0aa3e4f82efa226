"""One step of the largest batch there can be, before the data: memory runs out now or never.

All of a step happens: forward, backward and the optimizer's step, with as many micro-batches of
each stream as it takes to have gradients beside activations. Then weights are put back from a copy
in the host's memory, optimizer state and gradients are dropped, and random numbers go on where they
were. What stays are the allocator's cache and, with DDP, the order of its buckets, which it finds
in the first backward pass there is: sums over three and more ranks may round otherwise than without
a preflight.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from flamingo.models.family import Shape
from flamingo.modules.placement import local_part
from flamingo.options.run import RunOptions
from flamingo.train.loop import Trainer
from flamingo.train.optim import clip_gradients, settle
from flamingo.train.step_counts import StepCounts

_PASSES = 2


def is_wanted(options: RunOptions, device: torch.device) -> bool:
    """Whether a run begins with a preflight."""
    if options.preflight == "auto":
        return options.auto_batch_size or device.type == "cuda"
    return options.preflight == "on"


def preflight(trainer: Trainer, shapes: Sequence[Shape]) -> None:
    """Take the step; every rank has to, with the same shapes.

    Args:
        trainer: of a run that has not begun, with a fresh optimizer.
        shapes: of the largest micro-batch of each stream.
    """
    if any(trainer.optimizer.state.values()):
        raise ValueError("preflight: expected an optimizer without state")
    trainer.world.mark(trainer.done + 1, "tries its largest batch")
    trained = [one for group in trainer.optimizer.param_groups for one in group["params"]]
    batches = {
        one.name: [trainer.model.largest_batch(one)] * min(_PASSES, one.passes) for one in shapes
    }
    counts = StepCounts.of(batches, 0.0)
    with _nothing_stays(trainer, trained):
        trainer.watch("before forward")
        trainer.backward(batches, counts)
        clip_gradients(trained, trainer.options.clip_norm, trainer.loss_scale.value)
        trainer.watch("after backward")
        trainer.optimizer.step()
        trainer.watch("after optimizer")


@contextmanager
def _nothing_stays(trainer: Trainer, trained: Sequence[Tensor]) -> Iterator[None]:
    device = trainer.world.device
    values = [local_part(one.detach()).to("cpu", copy=True) for one in trained]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.optimizer.state.clear()
        for one, value in zip(trained, values, strict=True):
            local_part(one.detach()).copy_(value)
        settle(trainer.optimizer)  # one that has copies of its own takes them anew
