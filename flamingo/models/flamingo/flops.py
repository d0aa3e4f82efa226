"""Arithmetic that a step needs, counted from the modules of the model that trains.

A matrix of n weights costs 2n floating-point operations for each position that it is applied to.
What a backward pass adds depends on what trains, and is counted by one rule: once more where the
gradient goes on to what came before, once more where the matrix itself trains. So

* the frozen vision tower costs its forward pass;
* resampler and cross-attention cost three times theirs, for they train, and so does what stands
  before them;
* the frozen LM costs twice its forward pass, since gradients go through it to the cross-attention
  in front of it, without one for its own weights. Blocks before all that trains cost it once; with
  media-token rows that train (the default) there are none, since gradients go back to the input;
* attention has no weights: its two products cost once forward and twice backward, or nothing
  backward where no gradient comes by.

What counts is what the model asks for, not what the machine happens to do: no padding, one image's
latents for each text position, logits at target positions only, and no recomputation of
checkpointed blocks. A share of the peak that is computed from this (MFU) falls when work is wasted.
Norms, activations and the look-up of embeddings are left out: below 1% of the rest.

The length of samples enters attention as its square; a step tells sums only, so all of a stream's
samples of a step are taken as equally long, which is a little less than the truth.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from flamingo.models.family import StepFlops
from flamingo.models.flamingo.cross_attention import GatedCrossAttentionBlock
from flamingo.models.flamingo.network import FlamingoNetwork
from flamingo.models.flamingo.resampler import PerceiverResampler, ResamplerAttention
from flamingo.modules.absent_tower import AbsentTower
from flamingo.modules.language_model import embedding_and_head, text_config

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def count_flops(model: FlamingoNetwork) -> StepFlops | None:
    """Count a model's operations; None for an LM with experts, of which a token sees a few only."""
    config = text_config(model.lang_encoder)
    if any((getattr(config, name, None) or 1) > 1 for name in _EXPERTS):
        return None
    patches = math.prod(cast(Any, model.vision_encoder).grid_size)
    image, cross = _resampler(model.perceiver, patches), 0.0
    num_latents = model.perceiver.latents.shape[0]
    token, pair = _outside_blocks(model), 0.0
    flows = model.media_tokens.input_rows.requires_grad
    pair_flops = 4.0 * _attention_width(config)
    for layer in model.decoder_blocks:
        if layer.gated_cross_attn_layer is not None:
            block = layer.gated_cross_attn_layer
            per_image, per_token = _cross_attention(block, num_latents)
            cross += per_image
            token += per_token
        flows = flows or _trains(layer)
        token += _products(layer.decoder_layer, flows=flows)
        pair += pair_flops * (3 if flows else 1)
    return StepFlops(
        tower=_tower(model.vision_encoder),
        image=image + cross,
        token=token,
        pair=pair,
        target=_products(embedding_and_head(model.lang_encoder)[1], flows=True),
    )


def _weights(module: nn.Module) -> Iterator[nn.Parameter]:
    """The matrices that a module multiplies positions with."""
    for part in module.modules():
        # Named, since transformers keeps GPT-2's transposed layers in a class of its own.
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D":
            yield cast(nn.Parameter, part.weight)
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            found = getattr(part, name, None)
            if isinstance(found, nn.Parameter):
                yield found


def _products(module: nn.Module, *, flows: bool) -> float:
    """Operations of one position in all matrices; `flows`: the gradient goes on through them."""
    return sum(
        2.0 * math.prod(weight.shape) * (1 + flows + weight.requires_grad)
        for weight in _weights(module)
    )


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _tower(tower: nn.Module) -> float:
    """Operations of one image in the vision tower, with its class token; 0 without a tower."""
    if isinstance(tower, AbsentTower):
        return 0.0
    vision: Any = tower
    positions, width = vision.positional_embedding.shape
    flows = _trains(tower)
    patches = 2.0 * math.prod(vision.conv1.weight.shape) * math.prod(vision.grid_size)
    attention = 4.0 * positions**2 * width * len(vision.transformer.resblocks)
    return float(
        patches * (1 + vision.conv1.weight.requires_grad)
        + positions * _products(vision.transformer, flows=flows)
        + attention * (3 if flows else 1)
    )


def _resampler(resampler: PerceiverResampler, num_patches: int) -> float:
    """Operations of one image in the resampler; latents see its patch tokens and themselves."""
    num_latents = resampler.latents.shape[0]
    total = 0.0
    for part in resampler.modules():
        if not isinstance(part, ResamplerAttention):
            continue
        seen = num_patches + num_latents
        inner = part.to_q.weight.shape[0]
        # Of all matrices only this one sees the patch tokens too.
        total += num_patches * _products(part.to_kv, flows=True)
        total += 3 * 4.0 * num_latents * seen * inner
    return total + num_latents * _products(resampler, flows=True)


def _cross_attention(block: GatedCrossAttentionBlock, num_latents: int) -> tuple[float, float]:
    """(of an image, of a text position) in one block."""
    per_image = num_latents * _products(block.attn.to_kv, flows=True)
    attention = 3 * 4.0 * num_latents * block.attn.to_q.weight.shape[0]
    matrices = (block.attn.to_q, block.attn.to_out, block.ff)
    return per_image, attention + sum(_products(part, flows=True) for part in matrices)


def _outside_blocks(model: FlamingoNetwork) -> float:
    """Operations of one position in the LM's matrices outside of its blocks and its head."""
    inside = {id(weight) for layer in model.decoder_blocks for weight in _weights(layer)}
    inside |= {id(weight) for weight in _weights(embedding_and_head(model.lang_encoder)[1])}
    outside = [weight for weight in _weights(model.lang_encoder) if id(weight) not in inside]
    return sum(2.0 * math.prod(w.shape) * (2 + w.requires_grad) for w in outside)


def _attention_width(config: Any) -> int:
    """Heads x their size."""
    heads: int = config.num_attention_heads
    return heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
