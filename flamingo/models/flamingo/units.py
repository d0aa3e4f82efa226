"""The parts of a Flamingo: which are gathered together when it is sharded, and how they are called.

One unit is the vision tower, the perceiver, each cross-attention block, each decoder block, the
embedding and the head (tied, they are one parameter and one unit: torch >= 2.13 refuses anything
else), and a last one what is left: position embeddings, final norms, the media-token rows.
"""

from collections.abc import Iterator
from typing import Any, cast

from flamingo.models.family import ModelPart, ShardUnit
from flamingo.models.flamingo.network import FlamingoNetwork
from flamingo.modules.absent_tower import AbsentTower
from flamingo.modules.language_model import embedding_and_head


def shard_units(model: FlamingoNetwork) -> Iterator[ShardUnit]:
    """The units of a model, those inside others first; the last one is the model with what is left.

    Ranks differ in how many chunks of images they encode, so the tower is gathered once for all
    chunks and let go by `encode_images`; a rank without images encodes a blank one.
    """
    yield ShardUnit((model.vision_encoder,), stays=True)
    yield ShardUnit((model.perceiver,))
    for layer in model.decoder_blocks:
        if layer.gated_cross_attn_layer is not None:
            yield ShardUnit((layer.gated_cross_attn_layer,))
        yield ShardUnit((layer,))
    embedding, head = embedding_and_head(model.lang_encoder)
    if model.media_tokens.tied:
        yield ShardUnit((embedding, head))
    else:
        # A frozen lookup has no backward pass; its output has one, for the media-token rows.
        yield ShardUnit((embedding,), in_backward=embedding.weight.requires_grad)
        yield ShardUnit((head,))
    yield ShardUnit((model,))


def model_parts(model: FlamingoNetwork) -> Iterator[ModelPart]:
    """The parts of a model in the order of a forward pass."""
    tower: Any = model.vision_encoder
    blocks = () if isinstance(tower, AbsentTower) else tuple(tower.transformer.resblocks)
    yield ModelPart("vision tower", tower, blocks)
    yield ModelPart("resampler", model.perceiver, tuple(cast(Any, model.perceiver.layers)))
    for layer in model.decoder_blocks:
        block = layer.gated_cross_attn_layer
        if block is not None:
            yield ModelPart("cross-attention", block, (block,))
        yield ModelPart("decoder blocks", layer.decoder_layer, (layer.decoder_layer,))
