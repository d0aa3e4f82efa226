"""Reads a parity fixture (cut or full) and builds our model with the reference's weights."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from flamingo.models.flamingo.checkpoint import load_openflamingo
from flamingo.models.flamingo.model import Flamingo
from tests.assets.parity import rebuild

ASSETS = Path(__file__).parents[3] / "assets" / "parity"
ROOT = Path(os.environ.get("MMDATA_PARITY", ASSETS))
FIXTURES = ("gptneox_every1_openclip222", "opt_every2")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ragged(seed: int, counts: list[int]) -> Tensor:
    """The images of a batch, drawn sample by sample as the reference's were."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(n, 3, 64, 64, generator=generator) for n in counts])


def padded(images: Tensor, counts: list[int]) -> Tensor:
    """Ragged (N, 3, H, W) -> OpenFlamingo's (B, T, 1, 3, H, W), zeros where there is no image."""
    vision_x = torch.zeros(len(counts), max(counts), 1, *images.shape[1:])
    for b, part in enumerate(images.split(counts)):
        vision_x[b, : len(part), 0] = part
    return vision_x


def make_tower() -> torch.nn.Module:
    open_clip.add_model_config(ASSETS / "models" / "tiny_vit.json")
    return open_clip.create_model("tiny_vit").visual


@dataclass
class ParityCase:
    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text())

    def tensors(self, file: str) -> dict[str, Tensor]:
        return rebuild.read(self.folder / f"{file}.safetensors")

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return rebuild.read_weights(self.folder)

    @cached_property
    def forward(self) -> dict[str, Tensor]:
        return self.tensors("forward")

    @cached_property
    def generate(self) -> dict[str, Tensor]:
        return self.tensors("generate")

    def tags(self, input_ids: Tensor) -> list[int]:
        return (input_ids == self.meta["media_token_id"]).sum(dim=1).tolist()

    def images(self, stream: str) -> tuple[Tensor, list[int]]:
        counts = self.tags(self.forward[f"{stream}.input_ids"])
        return ragged({"mmc4": 5, "laion": 6}[stream], counts), counts

    def prompt_images(self) -> tuple[Tensor, list[int]]:
        slots = normal(8, 2, 2, 3, 64, 64)  # the second slot of the second prompt was blanked
        return torch.cat([slots[0], slots[1, :1]]), [2, 1]

    def real_slots(self, name: str) -> Tensor:
        """Resampler output of the reference for real images: (N, K, D)."""
        stream = name.partition(".")[0]
        counts = self.tags(self.forward[f"{stream}.input_ids"])
        return torch.cat([row[:n] for row, n in zip(self.forward[name], counts, strict=True)])

    def columns(self, logits: Tensor) -> Tensor:
        """Our logits in the columns that the fixture keeps."""
        full = "mmc4.logits" in self.forward and self.forward["mmc4.logits"].shape[-1]
        return logits if logits.shape[-1] == full else rebuild.columns(logits)

    def build_model(self, **options: Any) -> Flamingo:
        config = AutoConfig.from_pretrained(ASSETS / "models" / self.meta["lm"])
        config.vocab_size = self.meta["vocab"]
        model = Flamingo(
            make_tower(),
            AutoModelForCausalLM.from_config(config),
            eoc_token_id=self.meta["eoc_token_id"],
            media_token_id=self.meta["media_token_id"],
            pad_token_id=self.meta["pad_token_id"],
            cross_attn_every_n_layers=self.meta["every"],
            vision_tokens="pre_norm" if "openclip222" in self.folder.name else "post_norm",
            **options,
        )
        model.initialise(seed=0)
        load_openflamingo(model, self.weights)
        return model
