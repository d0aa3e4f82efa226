"""What a person is told when memory runs out: which category grew, and the two cheapest changes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flamingo.memory.estimate import GB
from flamingo.memory.levers import advice
from flamingo.memory.phases import MemoryLog, Moment
from flamingo.train.loop import Trainer
from mmdata.errors import MMDataError

#: Of a category, that a step makes: where one is short, what follows is short too.
_GROWING = ("activations", "gradients", "optimizer")


class MemoryShortError(MMDataError):
    """The GPU's memory does not do."""

    exit_code = 1


@contextmanager
def told_when_short(trainer: Trainer, memory: MemoryLog, *, during: str) -> Iterator[None]:
    """Turn torch's error into one line, of the step that is taken in here.

    Args:
        trainer: that takes it.
        memory: that watches it.
        during: what is done, in words.

    Raises:
        MemoryShortError: memory ran out.
    """
    before = memory.measure("before forward")
    try:
        yield
    except torch.OutOfMemoryError as error:
        # The frames of the error still hold what was there when it came.
        text = _told(trainer, memory, before, memory.measure("after forward"), during)
        raise MemoryShortError(text) from error


def _told(
    trainer: Trainer, memory: MemoryLog, before: Moment, after: Moment, during: str
) -> str:
    growth = {name: after.categories[name] - before.categories[name] for name in _GROWING}
    # Short in the optimizer's step, gradients are there in full: it is the state that does not fit.
    is_optimizer = memory.phase == "after backward"
    name = "optimizer" if is_optimizer else max(growth, key=lambda one: growth[one])
    changes = advice(trainer.options, name, ranks=trainer.world.size)
    return (
        f"out of memory on {trainer.world.device} {during}: {name} grew by "
        f"{growth[name] / GB:.2f} GB to {after.categories[name] / GB:.2f} of "
        f"{after.allocated / GB:.2f} GB; cheapest first: {'; '.join(changes)}"
    )
