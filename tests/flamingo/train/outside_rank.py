"""What each of two ranks does for the tests of passes outside a step.

A row trains two steps with such passes around each of them and a checkpoint behind each, and goes
on from the first checkpoint without any: what is saved then has to be the same.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from flamingo.data.batch import blank_batch
from flamingo.launch import run
from flamingo.memory.phases import MemoryLog
from flamingo.models.family import Shape
from flamingo.models.flamingo.options import Train
from flamingo.parallel.world import join
from flamingo.train.loop import Trainer

from .eager import without_compiler

STEPS = 2


@dataclass(frozen=True)
class Case:
    """A row of the covering array.

    Attributes:
        options: of the run, but for the passes outside its steps.
        outside: options that ask for such passes.
        passes: names of those that are made by hand behind each step.
    """

    options: Train
    outside: dict[str, Any]
    passes: str = ""

    @property
    def whole(self) -> Train:
        return replace(self.options, save_steps=1, **self.outside)

    @property
    def resumed(self) -> Train:
        first = f"{self.options.run_name}/checkpoints/step-00000001"
        name = f"{self.options.run_name}-resumed"
        return replace(self.options, run_name=name, resume_from_checkpoint=first)


def run_outside(rank: int, size: int, folder: str, cases: list[Case]) -> None:
    """Be one rank."""
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    environ = {name: str(value) for name, value in numbers.items()}
    with without_compiler():
        for number, case in enumerate(cases):
            for name, options, passes in (
                ("whole", case.whole, PASSES[case.passes]),
                ("resumed", case.resumed, no_pass),
            ):
                store = f"file://{folder}/store-{number}-{name}"
                with passes_behind_steps(passes, environ, store):
                    run.train(options)


@contextmanager
def passes_behind_steps(
    passes: Callable[[Trainer], None], environ: dict[str, str], store: str
) -> Iterator[None]:
    """Every step of a run that this rank takes is followed by these passes."""
    step = run.watched_step

    def step_and_pass(trainer: Trainer, memory: MemoryLog) -> Any:
        report = step(trainer, memory)
        trainer.model.eval()
        passes(trainer)
        trainer.model.train()
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "watched_step", step_and_pass)
        patch.setattr(run, "join", functools.partial(join, environ=environ, init_method=store))
        yield


def no_pass(_trainer: Trainer) -> None:
    """Nothing between steps."""


def generate(trainer: Trainer) -> None:
    """Text for a picture; the ranks write equally many tokens."""
    ids = torch.tensor([[trainer.model.media_token_id, 5, 6]])
    batch = trainer.model.largest_batch(_one_picture(trainer))
    images = trainer.model.pictures(batch, trainer.world.device)
    trainer.model.generate(
        ids, images=images, images_per_sample=[1], max_new_tokens=3, min_new_tokens=3
    )


def measure(trainer: Trainer) -> None:
    """The loss with a picture and without any, as is and with a graph that nobody goes back; and
    what telemetry counts of the model then."""
    for batch in (trainer.model.largest_batch(_one_picture(trainer)), blank_batch()):
        with torch.no_grad():
            trainer.sum_loss(batch)
        trainer.sum_loss(batch)
    trainer.model.step_flops()
    MemoryLog(None, trainer, every=1).measure("before forward")


def by_hand(trainer: Trainer) -> None:
    """Both of them."""
    generate(trainer)
    measure(trainer)


def _one_picture(trainer: Trainer) -> Shape:
    documents = 1 if trainer.options.pack else None
    return Shape(
        name="mmc4",
        sequences=1,
        tokens=6,
        images=1,
        documents=documents,
        is_features=False,
        passes=1,
    )


PASSES: dict[str, Callable[[Trainer], None]] = {
    "": no_pass,
    "by hand": by_hand,
}
