"""The streams of a run as this rank reads them, from its options.

A global batch has B samples of each stream: micro-batch x accumulation x ranks at the first launch,
and the same B ever after. On other ranks the number of micro-batches changes, not B.
"""

import dataclasses
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from flamingo.data.batch import Batch
from flamingo.data.cache import ShardCache
from flamingo.data.damage import DamageCount
from flamingo.data.mix import Share, accumulation, mix_shares, mix_slots, whole_share
from flamingo.data.order import Position
from flamingo.data.stream import Stream
from flamingo.data.text_layout import TextLayout
from flamingo.options.run import RunOptions
from flamingo.options.streams import TrainStream, mix_of, training_streams, validation_streams
from flamingo.parallel.world import World
from mmdata.errors import UserError
from mmdata.training_view.sequence import MediaTokenizer

#: That decode for a stream; more would be in each other's way, and in the trainer's.
_MOST_THREADS = 16


def make_streams(
    options: RunOptions,
    tokenizer: MediaTokenizer,
    image_size: int,
    cache: ShardCache | None = None,
    *,
    world: World | None = None,
    layout: TextLayout | None = None,
    kept: Mapping[str, int] | None = None,
) -> list[Stream]:
    """The streams that the options name, each with this rank's part of the global batch.

    Args:
        options: of the run.
        tokenizer: with the media tokens.
        image_size: pixels of the square that the model sees.
        cache: of shards that are not on this machine.
        world: ranks of the run.
        layout: of the batches' text; a decoder's where none is given.
        kept: B of each stream from the first launch; None: as the options say.

    Raises:
        UserError: the ranks cannot share B.
    """
    world = world or World()
    wanted = training_streams(options, image_size=image_size)
    plan = _mixed if options.mix is not None else _each
    parts = plan(options, wanted, world, kept or {})
    return [
        Stream(
            dataclasses.replace(
                one.config,
                batch_size=parts[one.name][0],
                global_batch_size=parts[one.name][1].batch_size,
                decode_threads=decode_threads(options, world),
            ),
            tokenizer,
            seed=options.seed,
            share=parts[one.name][1],
            cache=cache,
            layout=layout,
            is_pinned=world.device.type == "cuda",
        )
        for one in wanted
    ]


def make_validation(
    options: RunOptions,
    tokenizer: MediaTokenizer,
    image_size: int,
    cache: ShardCache | None = None,
    *,
    world: World | None = None,
    layout: TextLayout | None = None,
) -> list[Stream]:
    """The streams that the loss is measured on, each with this rank's part."""
    world = world or World()
    return [
        Stream(
            dataclasses.replace(one.config, decode_threads=decode_threads(options, world)),
            tokenizer,
            seed=options.seed,
            validation=True,
            rank=world.rank,
            world=world.size,
            cache=cache,
            layout=layout,
            is_pinned=world.device.type == "cuda",
        )
        for one in validation_streams(options, image_size=image_size)
    ]


def decode_threads(options: RunOptions, world: World) -> int:
    """Threads that decode a stream's pictures: --workers, or what the host has for this rank.

    For a GPU that is a share of the processors that this process may use, less one for the thread
    that queues the GPU's work. A CPU trains with those itself, and gets one thread.
    """
    if options.workers is not None:
        return options.workers
    if world.device.type != "cuda":
        return 1
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(max(1, cores // world.local_size - 1), _MOST_THREADS)


def open_cache(options: RunOptions) -> ShardCache | None:
    """The cache for shards of a store; None without --cache-dir."""
    if options.cache_dir is None:
        return None
    return ShardCache(options.cache_dir, int(options.cache_gb * 1e9))


def micro_batches(
    options: RunOptions, wanted: list[TrainStream], world: World
) -> dict[str, tuple[int, int]]:
    """(samples of a micro-batch, micro-batches of a step on a rank) of each stream, unread."""
    plan = _mixed if options.mix is not None else _each
    parts = plan(options, wanted, world, {})
    return {
        name: (micro, -(-len(share.lanes) * share.samples_per_lane // micro))
        for name, (micro, share) in parts.items()
    }


def _each(
    options: RunOptions, wanted: list[TrainStream], world: World, kept: Mapping[str, int]
) -> dict[str, tuple[int, Share]]:
    """Each stream's micro-batch and its share, where each has a batch of its own."""
    parts = {}
    for one in wanted:
        micro = one.config.batch_size
        asked = micro * options.gradient_accumulation_steps * world.size
        total = kept.get(one.name, asked)
        _micro_batches(one.name, total, micro, world, asked)
        share = whole_share(total, num_lanes=one.config.lanes, rank=world.rank, world=world.size)
        parts[one.name] = (micro, share)
    return parts


def _mixed(
    options: RunOptions, wanted: list[TrainStream], world: World, kept: Mapping[str, int]
) -> dict[str, tuple[int, Share]]:
    """Each stream's micro-batch and its share, where one batch is shared by all streams."""
    micro = options.batch_size or sum(one.config.batch_size for one in wanted)
    asked = micro * options.gradient_accumulation_steps * world.size
    total = sum(kept.values()) or asked
    num_micro = _micro_batches("--mix", total, micro, world, asked)
    slots = mix_slots(mix_of(options) or {}, total)
    shares = mix_shares(slots, rank=world.rank, world=world.size)
    return {name: (-(-len(one.lanes) // num_micro) or 1, one) for name, one in shares.items()}


#: What says the micro-batch of a stream that has an option of its own.
_BATCH_OPTIONS = {
    "mmc4": "--batch-size-mmc4",
    "laion": "--batch-size-laion",
    "--mix": "--batch-size",
}


def _micro_batches(name: str, total: int, micro: int, world: World, asked: int) -> int:
    """Micro-batches of a step on this rank."""
    try:
        return accumulation(total, micro, world.size)
    except UserError as error:
        option = _BATCH_OPTIONS.get(name, f"--stream-opt {name}.batch_size=N")
        raise UserError(
            f"{name}: samples of a step: was {total}, is {asked}: {error} ({option}); or "
            "start a new sequence "
            "of samples with --allow-new-batch-size"
        ) from error


@dataclass(slots=True)
class StreamLoader:
    """A stream as the trainer sees it.

    Attributes:
        name: in logs.
        steps: endless: the micro-batches of each step.
        multiplier: of its loss.
        position: after the last step that was taken; steps may have been drawn beyond it.
        damage: what was found damaged in it on this rank.
        has_features: whether precomputed features stand for its pictures.
    """

    name: str
    steps: Generator[list[Batch], None, None]
    multiplier: float
    position: Position
    damage: Callable[[], DamageCount]
    has_features: bool = False
