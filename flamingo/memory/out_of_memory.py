"""What a person is told when memory runs out: which category grew, and the two cheapest changes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from flamingo.memory.advice import advice
from flamingo.memory.batch_size import layout_of_world
from flamingo.memory.estimate import GB
from flamingo.memory.largest_batch import shapes_of
from flamingo.memory.phases import MemoryLog
from flamingo.memory.preflight import is_wanted, preflight
from flamingo.telemetry.steps import StepReport
from flamingo.train.loop import Trainer
from mmdata.errors import EXIT_CANNOT_START, EXIT_FINDINGS, MMDataError

#: Of a category, that a step makes: where one is short, what follows is short too.
_GROWING = ("activations", "gradients", "optimizer")


class MemoryShortError(MMDataError):
    """The GPU's memory does not do."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def watched_step(trainer: Trainer, memory: MemoryLog) -> StepReport:
    """A step of the trainer, measured where that is due.

    Raises:
        MemoryShortError: memory ran out.
    """
    with told_when_short(memory, during=f"in step {trainer.done + 1}"), memory.step():
        return trainer.step()


def watched_preflight(trainer: Trainer, memory: MemoryLog, rules: Mapping[str, str]) -> None:
    """A preflight of the trainer's run, where one is wanted.

    Args:
        trainer: of a run that has not begun.
        memory: that watches it.
        rules: of the streams.

    Raises:
        MemoryShortError: memory ran out; nothing has been trained.
    """
    options, world = trainer.options, trainer.world
    if not is_wanted(options, world.device):
        return
    shapes = shapes_of(options, layout_of_world(world), rules)
    told = "; ".join(f"{one.name}: {one.text()}" for one in shapes)
    hint = "a lower --memory-budget" if options.auto_batch_size else ""
    during = f"in the preflight ({told})"
    with told_when_short(memory, during=during, exit_code=EXIT_CANNOT_START, hint=hint):
        preflight(trainer, shapes)


@contextmanager
def told_when_short(
    memory: MemoryLog, *, during: str, exit_code: int = EXIT_FINDINGS, hint: str = ""
) -> Iterator[None]:
    """Turn torch's error into one line.

    Args:
        memory: that watches.
        during: what is done in here, in words.
        exit_code: of the error.
        hint: what to change before all else.

    Raises:
        MemoryShortError: memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        # The frames of the error still hold what was there when it came.
        raise MemoryShortError(_told(memory, during, hint), exit_code) from error


def _told(memory: MemoryLog, during: str, hint: str) -> str:
    trainer, before, after = memory.trainer, memory.before, memory.measure("after forward")
    now = after.categories
    growth = {name: now.get(name, 0) - before.categories.get(name, 0) for name in _GROWING}
    # Short in the optimizer's step, gradients are there in full: it is the state that does not fit.
    is_optimizer = memory.phase == "after backward"
    name = "optimizer" if is_optimizer else max(growth, key=lambda one: growth[one])
    changes = [hint] if hint else []
    changes += advice(trainer.options, name, ranks=trainer.world.size)
    return (
        f"out of memory on {trainer.world.device} {during}: {name} grew by "
        f"{growth[name] / GB:.2f} GB to {now.get(name, 0) / GB:.2f} of "
        f"{after.allocated / GB:.2f} GB; cheapest changes: {'; '.join(changes)}"
    )
