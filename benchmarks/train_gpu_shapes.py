"""Flamingos of published sizes with random weights, made on the device in seconds.

How long a step takes and what it holds do not depend on what the weights are, so nothing is
downloaded or read from a disk. `3b` is OpenFlamingo-3B's shape with a GPT-NeoX in place of its MPT
(the one that stands in the benchmark's goal), `9b` is OpenFlamingo-9B's, `tiny` runs the same code
on a CPU.
"""

from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from flamingo.models.flamingo.family import part_types
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import Train
from flamingo.modules.absent_tower import AbsentTower
from flamingo.modules.recompute import Recompute
from flamingo.train.compile import compile_blocks
from flamingo.train.precision import types_of
from mmdata.training_view.sequence import MediaTokenizer

SEED = 0
#: open_clip's ViT-L-14 for OpenAI's weights, with as little of a text tower as it takes.
_VIT_L: dict[str, Any] = {
    "embed_dim": 768,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
    "text_cfg": {"context_length": 16, "vocab_size": 512, "width": 64, "heads": 2, "layers": 1},
}
_VIT_TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {
        **{"image_size": 32, "layers": 1, "width": 32},
        **{"patch_size": 16, "head_width": 16},
    },
    "text_cfg": {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A Flamingo's size.

    Attributes:
        clip: of open_clip's CLIP.
        lm: of transformers' config, `model_type` among it.
        every_n: cross-attention stands before every n-th decoder block.
    """

    clip: dict[str, Any]
    lm: dict[str, Any]
    every_n: int

    @property
    def image_size(self) -> int:
        """Pixels of the square that the tower sees."""
        return int(self.clip["vision_cfg"]["image_size"])

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of an image."""
        side = self.image_size // int(self.clip["vision_cfg"]["patch_size"])
        return side, side


SHAPES: dict[str, Shape] = {
    "3b": Shape(
        _VIT_L,
        {
            "model_type": "gpt_neox",
            "vocab_size": 50280,
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 8192,
        },
        every_n=1,
    ),
    "9b": Shape(
        _VIT_L,
        {"model_type": "mpt", "vocab_size": 50280, "d_model": 4096, "n_layers": 32, "n_heads": 32},
        every_n=4,
    ),
    "tiny": Shape(
        _VIT_TINY,
        {
            "model_type": "gpt_neox",
            "vocab_size": 2100,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        every_n=1,
    ),
}


def build(
    shape: Shape,
    tokenizer: MediaTokenizer,
    options: Train,
    device: torch.device,
    *,
    attention: str = "sdpa",
    with_tower: bool = True,
) -> Flamingo:
    """A Flamingo in training mode, as `mmdata train` has it with these options.

    Args:
        shape: its size.
        tokenizer: of which it takes the ids of the media tokens.
        options: precision, checkpointing, packing and compilation are looked at.
        device: where it is made.
        attention: of the LM, where it has that kind; else eager.
        with_tower: False: features stand for pictures.
    """
    types = part_types(options.freeze, types_of(options))
    torch.manual_seed(SEED)
    with torch.device(device):
        tower = _tower(shape, with_tower=with_tower).to(types["tower_dtype"])
        lm = language_model(shape, attention, types["lm_dtype"])
        model = Flamingo(
            tower,
            lm,
            eoc_token_id=tokenizer.endofchunk_id,
            media_token_id=tokenizer.image_id,
            pad_token_id=tokenizer.pad_id,
            cross_attn_every_n_layers=shape.every_n,
            vision_chunk=options.vision_chunk,
            train_output_rows=options.train_output_rows,
        )
    for part in (model.perceiver, model.media_tokens, *model.cross_attention_blocks):
        part.to(types["own_dtype"])
    model.initialise(SEED, old_rows=shape.lm["vocab_size"])
    with torch.no_grad():
        for block in model.cross_attention_blocks:
            # Closed gates would hide from the loss what cross-attention does.
            block.attn_gate.fill_(0.5)
            block.ff_gate.fill_(0.5)
    policy: Recompute | None = None
    if options.gradient_checkpointing:
        policy = options.checkpoint_policy or "full"
    model.set_activation_checkpointing(policy)
    if options.pack:
        model.allow_packing()
    model.to(device).train()
    if options.compile:
        compile_blocks(model)
    return model


def _tower(shape: Shape, *, with_tower: bool) -> nn.Module:
    if not with_tower:
        return AbsentTower("random", shape.clip["vision_cfg"]["width"], shape.grid)
    tower: nn.Module = open_clip.CLIP(**shape.clip).visual
    return tower


def language_model(shape: Shape, attention: str, dtype: torch.dtype) -> nn.Module:
    """Random, on the device of the context; `attention` where it has that kind, else eager."""
    config = AutoConfig.for_model(**shape.lm)
    try:
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    except ValueError:  # MPT's attention is eager only
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
