"""`--auto-batch-size`: the largest micro-batch that the estimate allows, with the same step.

What a step takes of each stream (B) decides the order of samples, so it stays: a micro-batch is cut
into equal parts, and as many more of them are accumulated. The estimate chooses and the preflight
tries, before any data; where the estimate was too low, the run ends there and says so.
"""

import dataclasses
from collections.abc import Iterator

from flamingo.memory.estimate import GB, Estimator, budget_of
from flamingo.memory.plan import Layout
from flamingo.options.run import RunOptions
from flamingo.options.streams import training_streams
from flamingo.parallel.world import World
from mmdata.errors import UserError


def layout_of_world(world: World) -> Layout:
    """How the ranks that are there hold a model."""
    shards = world.mesh.size(1) if world.mesh is not None and world.mesh.ndim == 2 else None
    return Layout.of(world.parallel, world.size, shards)


def with_largest_batch(options: RunOptions, world: World) -> RunOptions:
    """The options with other micro-batches and accumulation; every rank has to ask.

    Raises:
        UserError: not even the smallest fits, or nothing says how much memory there is.
    """
    told = world.gather(budget_of(options))
    if None in told:
        raise UserError("--auto-batch-size: expected --memory-budget GB where there is no GPU")
    budget = min(told)
    estimator = Estimator(options, layout=layout_of_world(world))
    smallest = 0
    for candidate in micro_batches_of(options):
        smallest = estimator.estimate(candidate).total
        if smallest <= budget:
            return candidate
    raise UserError(
        f"--auto-batch-size: the smallest micro-batch takes {smallest / GB:.2f} GB of the "
        f"{budget / GB:.2f} that a rank may take; mmdata train --estimate says where it goes"
    )


def micro_batches_of(options: RunOptions) -> Iterator[RunOptions]:
    """The options of one step in micro-batches of every size that divides it, the largest first."""
    before = options.gradient_accumulation_steps
    sizes = {one.name: one.config.batch_size for one in training_streams(options)}
    if options.mix is not None:
        sizes = {"": options.batch_size or sum(sizes.values())}
    steps = {name: size * before for name, size in sizes.items()}
    for passes in range(1, min(steps.values()) + 1):
        if any(number % passes for number in steps.values()):
            continue
        changes = tuple(f"{name}.batch_size={n // passes}" for name, n in steps.items() if name)
        yield dataclasses.replace(
            options,
            gradient_accumulation_steps=passes,
            batch_size=steps[""] // passes if "" in steps else None,
            stream_opt=(*options.stream_opt, *changes),
        )
