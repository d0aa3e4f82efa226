"""Folders as the hub would give them: a tiny LM with its tokenizer, and CLIP weights."""

from pathlib import Path
from typing import Any

import open_clip
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mmdata.training_view.tokenizer import load_tokenizer
from tests.flamingo.models.flamingo.parity_case import ASSETS, make_tower

TOKENIZER = str(ASSETS / "models" / "tokenizer")


def lm_config(family: str, **changes: Any) -> Any:
    config = AutoConfig.from_pretrained(ASSETS / "models" / family)
    config.update(changes)
    return config


def save_lm(folder: Path, family: str = "gptneox", seed: int = 0, **changes: Any) -> str:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(lm_config(family, **changes)).save_pretrained(folder)
    return str(folder)


def save_clip(folder: Path) -> str:
    make_tower()  # registers its config
    path = folder / "clip.pt"
    torch.save(open_clip.create_model("tiny_vit").state_dict(), path)
    return str(path)


def tokenizer() -> Any:
    return load_tokenizer(TOKENIZER, local_files_only=True)
