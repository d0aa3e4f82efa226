"""The largest batch that a stream can give: most images, most tokens, all of them targets.

Nothing is read. How many documents a packed sequence holds has no bound that helps; taken is what
documents of full length and captions of a quarter of theirs come to. The batch itself is made up by
the model (`TrainableModel.largest_batch`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flamingo.memory.plan import Layout
from flamingo.models.family import Shape
from flamingo.options.run import RunOptions
from flamingo.options.streams import TrainStream, training_streams
from flamingo.parallel.world import World
from flamingo.train.loaders import micro_batches
from mmdata.catalogue.shards import rule_by_manifests
from mmdata.errors import UserError
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.training_view.records import RecordRule

_CAPTIONS_IN_ONE = 4
#: Positions of text in a pass of all streams, for one in passes of their own: where streams are
#: merged by themselves, at most.
_MOST_PADDING = 1.25


def shapes_of(
    options: RunOptions, layout: Layout, rules: Mapping[str, str] | None = None
) -> list[Shape]:
    """The largest micro-batch of each stream of a run.

    Args:
        options: of the run; shards need not be there.
        layout: of the ranks.
        rules: of the streams, as they were found out; else as the manifests of their shards say,
            where these are there.
    """
    streams = training_streams(options)
    world = World(size=layout.ranks)
    counts = micro_batches(options, streams, world)
    shapes = []
    for one in streams:
        config = one.config
        rule: Any = (rules or {}).get(one.name) or _rule_of(one)
        tokens = config.max_tokens or MAX_TOKENS[rule]
        images = 1 if rule == "caption" else config.max_images
        documents = None
        if config.pack_tokens is not None:
            each = max(1, tokens // _CAPTIONS_IN_ONE) if rule == "caption" else tokens
            documents = max(1, config.pack_tokens // each)
            tokens, images = config.pack_tokens, documents * images
        shapes.append(
            Shape(
                name=one.name,
                sequences=counts[one.name][0],
                tokens=tokens,
                images=images,
                documents=documents,
                is_features=config.features is not None,
                passes=counts[one.name][1],
            )
        )
    return shapes


def merges_streams(options: RunOptions, shapes: Sequence[Shape], *, on_gpu: bool) -> bool:
    """Whether the streams of a run go through the model in one pass.

    What decides is the same on all ranks. On a CPU nothing is gained by fewer kernels, so that
    `auto` changes no sum there.

    Args:
        options: of the run.
        shapes: of `shapes_of`.
        on_gpu: whether it is computed on one.

    Raises:
        UserError: they are to, and cannot.
    """
    if options.merge_streams == "off" or len(shapes) < 2:
        return False
    fits = len({one.is_features for one in shapes}) == 1
    if options.merge_streams == "on":
        if not fits:
            raise UserError(
                "--merge-streams on: some streams bring pictures and others features, which go "
                "through different parts of the model; leave it out"
            )
        return True
    apart = sum(one.sequences * one.tokens for one in shapes)
    merged = sum(one.sequences for one in shapes) * max(one.tokens for one in shapes)
    return on_gpu and fits and merged <= _MOST_PADDING * apart


def passes_of(
    options: RunOptions, shapes: Sequence[Shape], *, on_gpu: bool
) -> list[tuple[Shape, ...]]:
    """The largest passes of a run, each of one stream or of all; arguments: `merges_streams`."""
    if merges_streams(options, shapes, on_gpu=on_gpu):
        return [tuple(shapes)]
    return [(one,) for one in shapes]


def _rule_of(stream: TrainStream) -> RecordRule:
    """By which rule a stream will be read, whose shards may still be to come."""
    config = stream.config
    if config.rule != "auto":
        return config.rule
    return rule_by_manifests(config.shards) or stream.likely_rule
