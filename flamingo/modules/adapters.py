"""LoRA adapters in the LM: putting them there, and merging them into it.

peft replaces a linear layer by one that holds the layer (`base_layer`) and its adapter (`lora_A`,
`lora_B`). They are put in before the layers are wrapped, so that cross-attention is never among
the targets; embeddings and head never are, for the media-token rows stand in their place. Values
come from the seed (the model draws them), not from peft.

Merging adds the adapter's product to the layer's weights (in the layer's precision; NF4 is made
whole first) and puts the layer back, so that the LM is an ordinary one again: same architecture,
same names, other weights.
"""

import warnings
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from flamingo.modules.adapter_settings import ALL_LINEAR, AdapterSettings
from flamingo.modules.freezing import is_adapter
from flamingo.modules.language_model import find_decoder_layers
from mmdata.errors import MissingExtraError, UserError


def inject_adapters(
    lang_encoder: nn.Module,
    settings: AdapterSettings,
    *,
    attr_name: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[str]:
    """Puts an adapter beside every layer that the settings name; returns the layers' names.

    Args:
        lang_encoder: as transformers makes it (or quantised), on the meta device or not.
        settings: with targets.
        attr_name: of the list of decoder layers, where structure does not tell it.
        dtype: of the adapters' weights, whatever the LM's is.

    Raises:
        UserError: a target names no layer.
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("lora", "peft", f"--lm-adapter {settings.kind}") from error
    names = find_targets(lang_encoder, settings, attr_name)
    transposed = {isinstance(lang_encoder.get_submodule(name), Conv1D) for name in names}
    config = LoraConfig(
        r=settings.r,
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        target_modules=names,
        fan_in_fan_out=transposed == {True},
    )
    # peft draws values that are drawn again; nobody else's random numbers are to move.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        inject_adapter_in_model(config, lang_encoder)
    for name, parameter in lang_encoder.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.to(dtype)
    return names


def find_targets(
    lang_encoder: nn.Module, settings: AdapterSettings, attr_name: str | None = None
) -> list[str]:
    """Names in the LM of the layers that get an adapter.

    Raises:
        UserError: a target names none; the text lists what could be named.
    """
    layers = dict(_adaptable(lang_encoder, attr_name))
    if settings.targets == (ALL_LINEAR,):
        return list(layers)
    found: set[str] = set()
    for target in settings.targets:
        matching = {name for name, inside in layers.items() if f".{inside}".endswith(f".{target}")}
        if not matching:
            known = ", ".join(dict.fromkeys(layers.values()))
            raise UserError(
                f"--lora-targets {target}: no layer of {type(lang_encoder).__name__} is called "
                f"that; there are {known or 'none'}"
            )
        found |= matching
    return [name for name in layers if name in found]


def _adaptable(lang_encoder: nn.Module, attr_name: str | None) -> Iterator[tuple[str, str]]:
    """(name in the LM, name in its decoder layer) of the layers that can have an adapter."""
    prefix, layers = find_decoder_layers(lang_encoder, attr_name)
    for index, layer in enumerate(layers):
        for inside, module in layer.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                yield f"{prefix}.{index}.{inside}", inside


def has_adapters(lang_encoder: nn.Module) -> bool:
    """Whether any layer of the LM has an adapter."""
    return any(is_adapter(name) for name, _ in lang_encoder.named_parameters())
