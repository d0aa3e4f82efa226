"""The largest batch that a stream can give: most images, most tokens, all of them targets.

Nothing is read. How many documents a packed sequence holds has no bound that helps; taken is what
documents of full length and captions of a quarter of theirs come to. The batch itself is made up by
the model (`TrainableModel.largest_batch`).
"""

from collections.abc import Mapping
from typing import Any

from flamingo.memory.plan import Layout
from flamingo.models.family import Shape
from flamingo.options.run import RunOptions
from flamingo.options.streams import TrainStream, training_streams
from flamingo.parallel.world import World
from flamingo.train.loaders import micro_batches
from mmdata.catalogue.shards import rule_by_manifests
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.training_view.records import RecordRule

_CAPTIONS_IN_ONE = 4


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


def _rule_of(stream: TrainStream) -> RecordRule:
    """By which rule a stream will be read, whose shards may still be to come."""
    config = stream.config
    if config.rule != "auto":
        return config.rule
    return rule_by_manifests(config.shards) or stream.likely_rule
