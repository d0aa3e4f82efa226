"""Trained adapters folded into the language model, which is then saved as transformers' own."""

import os
from typing import Any, cast

import torch
from torch import nn

from flamingo.models.flamingo.checkpoint import export_matrices
from flamingo.models.flamingo.decoder import ConditionedLayer
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.quantised import dequantise_linears
from mmdata.errors import UserError


def merge_adapters(lang_encoder: nn.Module) -> int:
    """Adds every adapter to the layer that it belongs to; returns how many there were.

    Raises:
        UserError: weights are not finite after it.
    """
    dequantise_linears(lang_encoder)
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
