"""The largest batch that a stream can give, made up: most images, most tokens, all of them targets.

Nothing is read. How many documents a packed sequence holds has no bound that helps; taken is what
documents of full length and captions of a quarter of theirs come to.

Dimensions: B sequences, L positions, N images, S pixels, V patch tokens of an image, D their width.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from flamingo.data.batch import Batch
from flamingo.data.order import Position
from flamingo.memory.plan import Layout
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.loss import IGNORED
from flamingo.parallel.world import World
from flamingo.train.loaders import micro_batches
from flamingo.train.options.streams import TrainStream, training_streams
from flamingo.train.options.train import Train
from mmdata.catalogue.shards import rule_by_manifests
from mmdata.training_view.plans import MAX_TOKENS
from mmdata.training_view.records import RecordRule

_CAPTIONS_IN_ONE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A stream's largest micro-batch.

    Attributes:
        name: of the stream.
        sequences: B.
        tokens: L.
        images: of each sequence.
        documents: of each sequence; None without packing.
        is_features: patch tokens come in place of pixels.
        passes: micro-batches of the stream in a step, on a rank.
    """

    name: str
    sequences: int
    tokens: int
    images: int
    documents: int | None = None
    is_features: bool = False
    passes: int = 1

    def text(self) -> str:
        """In words, for a person."""
        what = "features" if self.is_features else "images"
        return f"{self.sequences} x {self.tokens} tokens, {self.sequences * self.images} {what}"


def shapes_of(
    options: Train, layout: Layout, rules: Mapping[str, str] | None = None
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


def worst_batch(shape: Shape, model: Flamingo) -> Batch:
    """A batch of this shape, on the CPU; black pictures, the same token everywhere."""
    size, length = shape.sequences, shape.tokens
    tags = min(shape.images, length - 1)
    ids = torch.zeros(size, length, dtype=torch.long)
    ids[:, :tags] = model.media_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # most batches are padded somewhere, and then there is a mask
    labels = ids.masked_fill((ids == model.media_token_id) | (mask == 0), IGNORED)
    index = None
    if shape.documents is not None:
        each = -(-length // shape.documents)
        index = (torch.arange(length) // each).expand(size, -1).contiguous()
        index = index.masked_fill(mask == 0, -1)
    number = size * tags
    tower = cast(Any, model.vision_encoder)
    pixels = features = None
    if shape.is_features:
        patches = tower.grid_size[0] * tower.grid_size[1]
        features = torch.zeros(number, patches, model.vis_dim, dtype=torch.bfloat16)
    else:
        pixels = torch.zeros(number, 3, *tower.image_size, dtype=torch.uint8)
    return Batch(
        pixels=pixels,
        features=features,
        mirrored=None,
        image_index=torch.arange(number),
        images_per_sample=torch.full((size,), tags),
        input_ids=ids,
        attention_mask=mask,
        labels=labels,
        document_index=index,
        keys=("",) * size,
        sources=("",) * size,
        position=Position(),
        drops=Counter(),
        num_targets=int((labels[:, 1:] != IGNORED).sum()),
    )
