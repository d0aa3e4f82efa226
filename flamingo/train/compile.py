"""torch.compile of the model, block by block.

Blocks of one kind are compiled once for all of them; what goes on between them (the media context,
gathering under FSDP, recomputation) stays outside of what is compiled. Batches are ragged, so
lengths and numbers of images are dynamic from the start, else every new shape would compile again.
Only a block's own `forward` is compiled: its hooks, which FSDP and peft put there, run as they are.
"""

from typing import Any

import torch

from flamingo.models.family import TrainableModel

BACKEND = "inductor"


def compile_blocks(model: TrainableModel) -> int:
    """Compiles each block's forward, at its first call; returns how many blocks there are."""
    blocks = [block for part in model.parts() for block in part.blocks]
    for block in blocks:
        compiled: Any = torch.compile(block.forward, backend=BACKEND, dynamic=True)
        block.forward = compiled
    return len(blocks)
