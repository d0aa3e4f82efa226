"""One rank as a process: trains in every way that it is told of and writes down what came of it.

`run_cases` is what a launch calls in each process; one launch runs all cases of a world size, since
starting the processes costs more than the training.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from flamingo.data.batch import Batch
from flamingo.launch import run
from flamingo.models.flamingo.checkpoint import trainable_state_dict
from flamingo.models.flamingo.options import Train
from flamingo.models.registry import find_family
from flamingo.parallel.world import World, join
from flamingo.parallel.wrap import wrap_model
from flamingo.telemetry.steps import StepReport
from flamingo.train import build
from flamingo.train.loaders import StreamLoader, make_streams
from flamingo.train.loop import Trainer
from flamingo.train.precision import LossScale
from flamingo.train.validation_loss import Validation
from mmdata.errors import MMDataError
from tests.flamingo.models.flamingo.tiny_lms import open_gates

#: Samples of each stream in a step, whatever the number of ranks.
B = 4
STEPS = 10
MESH = {"hsdp": (2, 2)}


@dataclass(frozen=True)
class Case:
    """A training.

    Attributes:
        name: of its result.
        parallel: how the model is spread.
        options: of the run, but for its accumulation, which follows from the ranks.
        steps: optimizer steps.
        is_double: in float64.
        twist: what is done to it: nothing, `text` (the last quarter of each batch has no image),
            or `nan` (the last rank's second step has a loss that is no number).
    """

    name: str
    parallel: str
    options: dict[str, Any]
    steps: int = STEPS
    is_double: bool = True
    twist: str = ""


def run_cases(rank: int, size: int, folder: str, cases: list[Case]) -> None:
    """Be one rank of a world of `size`; the first writes each case's result."""
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    environ = {name: str(value) for name, value in numbers.items()}
    store = f"file://{folder}/store{size}"
    with join("ddp", environ=environ, init_method=store, timeout_seconds=120) as world:
        for case in cases:
            result = train_case(case, _spread_as(world, case.parallel))
            if rank == 0:
                torch.save(result, Path(folder) / f"{case.name}.{size}.pt")
        told = world.gather(tell_errors(world))
        if rank == 0:
            torch.save(told, Path(folder) / f"errors.{size}.pt")


class BrokenShardError(MMDataError):
    """With an exit code of its own."""

    exit_code = 7


def tell_errors(world: World) -> list[tuple[str, str, int]]:
    """What this rank raises, by name, text and exit code, when the first or the last finds
    something wrong, on its own and while it is asked."""
    told = []

    def find(culprit: int) -> None:
        if world.rank == culprit:
            raise BrokenShardError("a.tar is broken")

    for culprit in (0, world.size - 1):
        try:
            with world.together():
                find(culprit)
        except MMDataError as error:
            told.append((type(error).__name__, str(error), error.exit_code))
        try:
            world.exchange(functools.partial(find, culprit))
        except MMDataError as error:
            told.append((type(error).__name__, str(error), error.exit_code))
    return told


def _spread_as(world: World, parallel: str) -> World:
    if world.size == 1:
        return world
    shape = MESH.get(parallel, (world.size,))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("copies", "shards")[-len(shape) :])
    return dataclasses.replace(world, parallel=parallel, mesh=mesh)


def train_case(case: Case, world: World) -> dict[str, Any]:
    """Losses, norms, weights after the first and the last step, keys of each global batch, …"""
    trainer, keys = make_trainer(case, world)
    folder = Path(case.options["run_name"]) / f"{case.name}.{world.size}"
    folder.mkdir(parents=True, exist_ok=True)
    held = run.make_validation(trainer.options, *_reads(trainer.options), world=world)
    validation = Validation(str(folder), held, every=None, done=0, world=world)
    measured = validation.measure(trainer) if held else {}
    reports, weights = [], []
    for _ in range(case.steps):
        reports.append(trainer.step())
        trained = trainable_state_dict(trainer.model)
        weights.append({name: value.clone() for name, value in trained.items()})
    found = {
        "losses": [report.losses for report in reports],
        "norms": [report.gradient_norm for report in reports],
        "skipped": [report.skipped for report in reports],
        "counts": [_given(report) for report in reports],
        "weights": weights[-1],
        "positions": run._positions(trainer),
        "validation": measured,
    }
    if case.twist == "nan":
        found["moved"] = [
            not _equal(before, after) for before, after in itertools.pairwise(weights)
        ]
        found["ranks_agree"] = all(
            _equal(weights[-1], other) for other in world.gather(weights[-1])
        )
    parts = world.gather(keys)
    found["keys"] = {
        name: [
            list(itertools.chain(*step))
            for step in zip(*(part[name] for part in parts), strict=True)
        ]
        for name in keys
    }
    for loader in trainer.loaders:
        loader.steps.close()
    return found


def _given(report: StepReport) -> dict[str, int]:
    """What the streams gave to a step, without what ranks that had nothing computed beside it."""
    counts = dataclasses.asdict(report.total)
    del counts["blank_images"]
    return counts


def make_trainer(case: Case, world: World) -> tuple[Trainer, dict[str, list[list[str]]]]:
    """A trainer on this rank, and where it notes the keys of its part of each stream's steps."""
    options = Train(**case.options, gradient_accumulation_steps=B // world.size)
    tokenizer, size = _reads(options)
    streams = make_streams(options, tokenizer, size, world=world)
    with _in_double(case.is_double):
        built = build.build_model(options, None, streams, world)
    keys: dict[str, list[list[str]]] = {
        stream.config.name: [[] for _ in range(case.steps)] for stream in streams
    }
    loaders = [
        StreamLoader(
            stream.config.name,
            _noted(stream.steps(), keys[stream.config.name], case, world, tokenizer.image_id),
            1.0 if stream.config.name == "mmc4" else 0.5,
            run.own_part(stream, run.Position()),
            stream.damage,
        )
        for stream in streams
    ]
    trainer = Trainer(
        wrapped=built,
        optimizer=run.make_optimizer(built.model, options),
        loaders=loaders,
        options=options,
        total_steps=case.steps,
        merges_streams=options.merge_streams == "on",
        world=world,
        loss_scale=LossScale.of(options),
    )
    if case.twist == "nan" and world.rank == world.size - 1:
        _break_second_step(trainer)
    return trainer, keys


def _reads(options: Train) -> tuple[Any, int]:
    """Tokenizer and image size of a run."""
    family = find_family(options.family)
    return run.MediaTokenizer(family.tokenizer(options)), family.image_size(options)


class _in_double:
    """Models are made float64, with open gates, before they are spread."""

    def __init__(self, is_double: bool) -> None:
        self._is_double = is_double

    def __enter__(self) -> None:
        def spread(model: Any, world: World) -> Any:
            open_gates(model, 0.5)  # closed ones keep the resampler's gradient at zero
            return wrap_model(model.double() if self._is_double else model, world)

        build.wrap_model = spread

    def __exit__(self, *_: object) -> None:
        build.wrap_model = wrap_model


def _noted(
    steps: Iterator[list[Batch]], keys: list[list[str]], case: Case, world: World, image_id: int
) -> Iterator[list[Batch]]:
    """The steps of a stream, their keys noted, without images where the case says so."""
    for number, micro in enumerate(steps):
        if number < len(keys):
            keys[number] += [key for batch in micro for key in batch.keys]
        if case.twist == "text":
            parts = [world.rank * len(micro) + place for place in range(len(micro))]
            last = len(micro) * world.size - 1
            micro = [
                without_images(batch, image_id) if part == last else batch
                for part, batch in zip(parts, micro, strict=True)
            ]
        yield micro


def without_images(batch: Batch, image_id: int) -> Batch:
    """The same text without its tags; some other token stands for each."""
    return dataclasses.replace(
        batch,
        pixels=None,
        mirrored=None,
        input_ids=batch.input_ids.masked_fill(batch.input_ids == image_id, 1),
        images_per_sample=torch.zeros_like(batch.images_per_sample),
    )


def _break_second_step(trainer: Trainer) -> None:
    """From a hook, as a bad value in the data or on a GPU would come."""

    def spoil(_module: Any, _args: Any, out: Tensor) -> Tensor:
        return out * math.nan if trainer.done == 1 else out

    trainer.model.perceiver.register_forward_hook(spoil)


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)
