"""The largest batch that a Flamingo can be given, made up: most images, most tokens, all targets.

Dimensions: B sequences, L positions, N images, S pixels, V patch tokens of an image, D their width.
"""

from typing import Any, cast

import torch

from flamingo.data.batch import Batch
from flamingo.models.family import Shape
from flamingo.models.flamingo.network import FlamingoNetwork
from flamingo.modules.documents import document_bounds
from flamingo.modules.loss import IGNORED


def worst_batch(model: FlamingoNetwork, limits: Shape) -> Batch:
    """The batch of these limits, on the CPU; black pictures, one token everywhere."""
    size, length = limits.sequences, limits.tokens
    tags = min(limits.images, length - 1)
    ids = torch.zeros(size, length, dtype=torch.long)
    ids[:, :tags] = model.media_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # most batches are padded somewhere; some LMs have a mask then
    labels = ids.masked_fill((ids == model.media_token_id) | (mask == 0), IGNORED)
    index = None
    if limits.documents is not None:
        each = -(-length // limits.documents)
        index = (torch.arange(length) // each).expand(size, -1).contiguous()
        index = index.masked_fill(mask == 0, -1)
    number = size * tags
    tower = cast(Any, model.vision_encoder)
    pixels = features = None
    if limits.is_features:
        patches = tower.grid_size[0] * tower.grid_size[1]
        features = torch.zeros(number, patches, model.vis_dim, dtype=torch.bfloat16)
    else:
        pixels = torch.zeros(number, 3, *tower.image_size, dtype=torch.uint8)
    return Batch(
        pixels=pixels,
        features=features,
        image_index=torch.arange(number),
        images_per_sample=torch.full((size,), tags),
        input_ids=ids,
        attention_mask=mask,
        labels=labels,
        document_index=index,
        document_bounds=None if index is None else document_bounds(index),
        keys=("",) * size,
        sources=("",) * size,
        num_targets=int((labels[:, 1:] != IGNORED).sum()),
    )
