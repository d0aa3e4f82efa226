"""Initial values of our own modules, as a function of the seed alone.

The values follow torch's defaults (and the published model: latents N(0, 1), gates 0), but from
a generator of their own: the order in which things are built, other libraries' draws, the
construction on the meta device and the number of ranks change nothing. Each parameter is drawn
whole, one at a time; a rank keeps its rows of it.
"""

import hashlib
import math

import torch
from torch import nn

from flamingo.models.flamingo.cross_attention import GatedCrossAttentionBlock
from flamingo.models.flamingo.resampler import PerceiverResampler
from flamingo.modules.placement import assign


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Fills a resampler or a cross-attention block; the generator lives on the CPU."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            bound = 1.0 / math.sqrt(part.in_features)
            _uniform(part.weight, bound, generator)
        elif isinstance(part, nn.LayerNorm):
            part.weight.fill_(1.0)
            part.bias.zero_()
        elif isinstance(part, PerceiverResampler):
            assign(part.latents, torch.empty(part.latents.shape).normal_(generator=generator))
        elif isinstance(part, GatedCrossAttentionBlock):
            part.attn_gate.zero_()
            part.ff_gate.zero_()


@torch.no_grad()
def initialise_adapters(lang_encoder: nn.Module, seed: int) -> None:
    """Fills LoRA adapters: A as peft does, B with zeros, so that they change nothing at first.

    Their generator is another one than that of our modules, whose values so stay what they are in a
    model without adapters.
    """
    digest = hashlib.sha256(f"adapters {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    for name, parameter in lang_encoder.named_parameters():
        parts = name.split(".")
        if "lora_A" in parts:
            _uniform(parameter, 1.0 / math.sqrt(parameter.shape[1]), generator)
        elif "lora_B" in parts:
            parameter.zero_()


def _uniform(weight: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    assign(weight, torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
