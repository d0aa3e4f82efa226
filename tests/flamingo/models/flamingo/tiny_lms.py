"""The smallest models of twelve families, with random weights, and Flamingos around them."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from flamingo.models.flamingo.model import Flamingo
from tests.flamingo.models.flamingo.parity_case import make_tower

VOCAB, EOC, IMAGE, PAD = 60, 57, 58, 59
WIDTH, LAYERS, HEADS = 32, 4, 4

_common: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_grouped = _common | {"num_key_value_heads": 2, "head_dim": 8}
_gpt = {
    "vocab_size": VOCAB,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, partial[PretrainedConfig]] = {
    "opt": partial(
        OPTConfig, **_common | {"ffn_dim": 48, "word_embed_proj_dim": 16, "pad_token_id": 1}
    ),
    "gpt_neox": partial(GPTNeoXConfig, **_common),
    "llama": partial(LlamaConfig, **_grouped),
    "mpt": partial(
        MptConfig,
        vocab_size=VOCAB,
        d_model=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        expansion_ratio=2,
        max_seq_len=64,
    ),
    "gptj": partial(GPTJConfig, **_gpt, rotary_dim=4),
    "gpt_neo": partial(
        GPTNeoConfig,
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        attention_types=[[["global", "local"], 2]],
        window_size=8,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "mistral": partial(MistralConfig, **_grouped, sliding_window=8),
    "qwen2": partial(Qwen2Config, **_grouped),
    "qwen3": partial(Qwen3Config, **_grouped),
    "gemma3": partial(Gemma3TextConfig, **_grouped | {"pad_token_id": 0}),
    "phi3": partial(Phi3Config, **_common | {"num_key_value_heads": 2}),
    "gpt2": partial(GPT2Config, **_gpt),
}


def make_lm(family: str) -> nn.Module:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
    with torch.no_grad():  # random logits far enough apart for argmax to be no coin toss
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return lm


def wrap(
    lm: nn.Module, *, initialise: bool = True, tower: nn.Module | None = None, **options: Any
) -> Flamingo:
    model = Flamingo(
        tower or make_tower(),
        lm,
        **{
            "eoc_token_id": EOC,
            "media_token_id": IMAGE,
            "pad_token_id": PAD,
            "cross_attn_every_n_layers": 2,
        }
        | options,
    )
    if initialise:
        model.initialise(seed=1)
    return model


def make_flamingo(family: str, *, gate: float = 0.7, **options: Any) -> Flamingo:
    model = wrap(make_lm(family), **options)
    open_gates(model, gate)
    return model


@torch.no_grad()
def open_gates(model: Flamingo, gate: float) -> None:
    for block in model.cross_attention_blocks:
        block.attn_gate.fill_(gate)
        block.ff_gate.fill_(gate)


def prompts() -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Left-padded ids and mask of three prompts with 2, 1 and 0 images, the images, the counts."""
    texts = [[IMAGE, 5, 6, EOC, IMAGE, 7, 8], [IMAGE, 9, 10], [11, 12, 13, 14, 15]]
    length = max(map(len, texts))
    ids = torch.tensor([[PAD] * (length - len(text)) + text for text in texts])
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    return ids, (ids != PAD).long(), images, [2, 1, 0]
