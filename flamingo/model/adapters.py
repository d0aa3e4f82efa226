"""LoRA adapters in the LM: whether there are any, and merging them into it.

peft replaces a linear layer by one that holds the layer and its adapter. Merging adds the
adapter's product to the layer's weights (in the layer's precision) and puts the layer back, so
that the LM is an ordinary one again: same architecture, same names, other weights.
"""

import os
from typing import Any, cast

import torch
from torch import nn

from flamingo.model.checkpoint_keys import export_matrices
from flamingo.model.decoder import ConditionedLayer
from flamingo.model.flamingo import Flamingo
from flamingo.model.freezing import is_adapter
from mmdata.errors import UserError


def has_adapters(lang_encoder: nn.Module) -> bool:
    """Whether any layer of the LM has an adapter."""
    return any(is_adapter(name) for name, _ in lang_encoder.named_parameters())


def merge_adapters(lang_encoder: nn.Module) -> int:
    """Adds every adapter to the layer that it belongs to; returns how many there were.

    Raises:
        UserError: weights are not finite after it.
    """
    merged = 0
    for name, layer in list(lang_encoder.named_modules()):
        if not (hasattr(layer, "base_layer") and hasattr(layer, "merge")):
            continue
        tuner: Any = layer
        try:
            tuner.merge(safe_merge=True)
        except ValueError as error:  # peft's: NaNs in the merged weights
            raise UserError(f"adapter of {name}: {error}") from error
        parent, _, attribute = name.rpartition(".")
        setattr(lang_encoder.get_submodule(parent), attribute, tuner.get_base_layer())
        merged += 1
    if hasattr(lang_encoder, "peft_config"):
        del lang_encoder.peft_config
    return merged


@torch.no_grad()
def save_language_model(model: Flamingo, folder: str | os.PathLike[str]) -> None:
    """Writes the LM as transformers does, without cross-attention, media-token rows in place.

    The model is taken apart for it and is of no use afterwards.
    """
    lm = cast(Any, model.lang_encoder)
    for matrix, values in export_matrices(model):
        matrix.copy_(values)
    layers = lm.get_submodule(model.decoder_layers_name)
    for index, layer in enumerate(layers):
        layers[index] = cast(ConditionedLayer, layer).decoder_layer
    lm._forward_pre_hooks.clear()
    lm.save_pretrained(folder)
