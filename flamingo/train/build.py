"""The model of a run, from its options to what a training pass calls.

With fsdp and hsdp each rank builds its rows alone; else the whole model is built and then wrapped.
Initial values are a function of the seed alone, the same for every number of ranks and every
--parallel.
"""

from collections.abc import Sequence

import torch

from flamingo.data.stream import Stream
from flamingo.models.family import How, TrainableModel
from flamingo.models.registry import find_family
from flamingo.options.run import RunOptions
from flamingo.options.streams import training_streams, validation_streams
from flamingo.parallel.world import World
from flamingo.parallel.wrap import Wrapped, rows_of, wrap_model
from flamingo.train.checkpoint.initial import table_of_load
from flamingo.train.compile import compile_blocks
from flamingo.train.precision import types_of


def build_model(
    options: RunOptions, weights: str | None, streams: Sequence[Stream], world: World
) -> Wrapped:
    """Load the parts, check them against each other and the streams, put the model on the ranks.

    Args:
        options: of the run.
        weights: what to start from: a checkpoint or a file; None: the seed alone.
        streams: of the run, those that are measured on too; their features are checked against
            the encoder of pictures, which is not loaded where all bring them.
        world: ranks of the run.

    Raises:
        UserError: something does not fit, on this rank or another.
    """
    in_host_memory = options.cpu_offload == "params"
    # Ranks with rows of their own do speak to each other in here, all at the same places; what only
    # one of them finds wrong ends the others after --dist-timeout.
    with world.together():
        how = How(
            types=types_of(options),
            weights=weights,
            on_load=table_of_load(options, weights),
            has_features=expect_features(options, streams),
            rows=rows_of(world, in_host_memory=in_host_memory) if world.is_sharded else None,
        )
        model = find_family(options.family).build(options, how)
        if options.pack:
            model.allow_packing()
    if not in_host_memory:  # then all is where it belongs
        model.to(world.device)
    model.train()
    # For the dropout of adapters, which nothing else draws with: each rank its own.
    torch.manual_seed(options.seed + world.rank)
    if options.compile:
        compile_blocks(model)
    return wrap_model(model, world)


def build_empty(options: RunOptions) -> TrainableModel:
    """The model of a run without memory for parameters, from configs alone.

    Raises:
        UserError: the parts do not fit each other.
    """
    streams = [*training_streams(options), *validation_streams(options)]
    how = How(
        types=types_of(options),
        has_features=all(one.config.features is not None for one in streams),
        is_empty=True,
    )
    return find_family(options.family).build(options, how).train()


def expect_features(options: RunOptions, streams: Sequence[Stream]) -> bool:
    """Have features checked against the encoder; returns whether every stream brings its own.

    Args:
        options: of the run.
        streams: of the run, those that are measured on included.

    Raises:
        UserError: the encoder has no weights to be known by.
    """
    bringing = [stream for stream in streams if stream.config.features is not None]
    if bringing:
        identity = find_family(options.family).feature_identity(options)
        for stream in bringing:
            stream.expect_tower(identity)
    return len(bringing) == len(streams)
