"""The model of a run, from its options to what a training pass calls.

With fsdp and hsdp each rank builds its rows alone; else the whole model is built and then spread.
Initial values are a function of the seed alone, the same for every number of ranks and every
--parallel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from flamingo.data.decode import Pixels, pixels_of
from flamingo.data.stream import Stream
from flamingo.models.flamingo.build import NoWeights, create_model_and_transforms
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.parallelize import create_sharded_model
from flamingo.modules.adapter_options import settings_of
from flamingo.parallel.world import World
from flamingo.parallel.wrap import Spread, spread_model
from flamingo.train.checkpoint.initial import table_of_load
from flamingo.train.compile import compile_blocks
from flamingo.train.features import expect_features
from flamingo.train.options.streams import training_streams, validation_streams
from flamingo.train.options.train import Train
from flamingo.train.precision import part_types


@dataclass(frozen=True, slots=True)
class Built:
    """A model that is ready to train.

    Attributes:
        spread: on the ranks.
        pixels: what its tower sees.
        tokenizer: transformers' own.
    """

    spread: Spread
    pixels: Pixels
    tokenizer: Any


def build_model(
    options: Train, tower: str, weights: str | None, streams: list[Stream], world: World
) -> Built:
    """Load the parts, check them against each other and the streams, spread the model.

    Args:
        options: of the run.
        tower: open_clip's name of the vision encoder.
        weights: what to start from: a checkpoint or a file; None: the seed alone.
        streams: of the run, those that are measured on too; their features are checked against
            the tower, which is not loaded where all bring them.
        world: ranks of the run.

    Raises:
        UserError: something does not fit, on this rank or another.
    """
    # Ranks with rows of their own do speak to each other in here, all at the same places; what only
    # one of them finds wrong ends the others after --dist-timeout.
    with world.together():
        without_tower = expect_features(streams, tower, options)
        model, image_processor, tokenizer = _load(
            options, tower, weights, _create(options, world), without_tower=without_tower
        )
        if options.pack:
            model.allow_packing()
        pixels = pixels_of(image_processor)
    if options.cpu_offload != "params":  # then all is where it belongs
        model.to(world.device)
    model.train()
    # For the dropout of adapters, which nothing else draws with: each rank its own.
    torch.manual_seed(options.seed + world.rank)
    if options.compile:
        compile_blocks(model)
    return Built(spread_model(model, world), pixels, tokenizer)


def build_empty(options: Train, tower: str) -> tuple[Flamingo, Any]:
    """The same model without memory for parameters, from configs alone, and its image processor.

    Raises:
        UserError: the parts do not fit each other.
    """
    streams = [*training_streams(options), *validation_streams(options)]
    without_tower = all(one.config.features is not None for one in streams)
    create = partial(create_model_and_transforms, weights=NoWeights())
    model, image_processor, _ = _load(options, tower, None, create, without_tower=without_tower)
    return model.train(), image_processor


def _create(options: Train, world: World) -> Callable[..., tuple[Flamingo, Any, Any]]:
    if world.is_sharded:
        in_host_memory = options.cpu_offload == "params"
        return partial(create_sharded_model, world=world, in_host_memory=in_host_memory)
    return create_model_and_transforms


def _load(
    options: Train,
    tower: str,
    weights: str | None,
    create: Callable[..., tuple[Flamingo, Any, Any]],
    *,
    without_tower: bool,
) -> tuple[Flamingo, Any, Any]:
    return create(
        tower,
        None if tower.startswith("local-dir:") else options.vision_encoder_pretrained,
        options.lm_path,
        options.tokenizer_path or options.lm_path,
        cross_attn_every_n_layers=options.cross_attn_every_n_layers,
        freeze_lm_embeddings=options.freeze_lm_embeddings,
        vision_tokens=options.vision_tokens,
        vision_chunk=options.vision_chunk,
        new_token_init=options.new_token_init,
        train_output_rows=options.train_output_rows,
        seed=options.seed,
        init_from=weights,
        offline=options.offline,
        trust_remote_code=options.trust_remote_code,
        gradient_checkpointing=options.gradient_checkpointing,
        adapters=settings_of(options),
        checkpoint_policy=options.checkpoint_policy or "full",
        freeze=options.freeze.split(","),
        **part_types(options),
        on_load=table_of_load(options, weights),
        without_tower=without_tower,
    )
