"""torch.compile of the model, block by block.

Blocks of one kind are compiled once for all of them; what goes on between them (the media context,
gathering under FSDP, recomputation) stays outside of what is compiled. Batches are ragged, so
lengths and numbers of images are dynamic from the start, else every new shape would compile again.
Only a block's own `forward` is compiled: its hooks, which FSDP and peft put there, run as they are.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.absent_tower import AbsentTower

BACKEND = "inductor"


def compile_blocks(model: Flamingo) -> int:
    """Compiles each block's forward, at its first call; returns how many blocks there are."""
    number = 0
    for block in _blocks(model):
        compiled: Any = torch.compile(block.forward, backend=BACKEND, dynamic=True)
        block.forward = compiled
        number += 1
    return number


def _blocks(model: Flamingo) -> Iterator[nn.Module]:
    if not isinstance(model.vision_encoder, AbsentTower):
        yield from cast(Any, model.vision_encoder).transformer.resblocks
    yield from model.perceiver.layers
    yield from model.cross_attention_blocks
    for layer in model.decoder_blocks:
        yield layer.decoder_layer
