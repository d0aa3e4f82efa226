"""Merging LoRA adapters: the same logits from an ordinary LM."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoModelForCausalLM

from flamingo.model.adapters import has_adapters, merge_adapters, save_language_model
from flamingo.model.checkpoint_keys import (
    export_matrices,
    load_trainable,
    trainable_state_dict,
)
from flamingo.model.flamingo import Flamingo
from flamingo.model.media_tokens import embedding_and_head
from mmdata.errors import UserError
from tests.flamingo.model.parity_case import make_tower
from tests.flamingo.model.tiny_lms import make_lm, open_gates, prompts, wrap

TARGETS = {"opt": ["q_proj", "v_proj"], "gpt_neox": ["query_key_value"]}


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    return make_tower()


def with_adapters(family: str, tower: nn.Module) -> Flamingo:
    """Adapters that do something: peft's start at a product of zero."""
    lm = inject_adapter_in_model(
        LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS[family]), make_lm(family)
    )
    model = wrap(lm, tower=tower)
    open_gates(model, 0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name or name.startswith("media_tokens."):
                parameter.normal_(std=0.2)
    return model


def logits(model: Flamingo) -> Any:
    ids, mask, images, counts = prompts()
    with torch.no_grad():
        return model(ids, mask, images=images, images_per_sample=counts).logits


@pytest.mark.parametrize("family", TARGETS)
def test_a_merged_lm_gives_the_same_logits_and_loads_like_any_other(
    family: str, tower: nn.Module, tmp_path: Path
) -> None:
    model = with_adapters(family, tower)
    before = logits(model)
    assert (logits(wrap(make_lm(family), tower=tower)) - before).abs().max() > 1e-3
    assert has_adapters(model.lang_encoder)
    assert merge_adapters(model.lang_encoder) == len(TARGETS[family]) * 4
    assert not has_adapters(model.lang_encoder)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)

    merged, weights = logits(model), trainable_state_dict(model)
    matrices = [values for _, values in export_matrices(model)]
    save_language_model(model, tmp_path / "lm")
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    embedding, head = embedding_and_head(lm)
    assert torch.equal(embedding.weight, matrices[0])
    assert torch.equal(head.weight, matrices[-1])
    other = wrap(lm, tower=tower)
    load_trainable(other, weights)
    assert torch.equal(logits(other), merged)


def test_weights_that_are_not_finite_are_named(tower: nn.Module) -> None:
    model = with_adapters("gpt_neox", tower)
    layer = model.decoder_blocks[1].decoder_layer.attention.query_key_value
    with torch.no_grad():
        layer.lora_B["default"].weight[0, 0] = float("nan")  # type: ignore[index,union-attr]
    with pytest.raises(UserError, match=r"adapter of gpt_neox\.layers\.1\..*query_key_value: NaN"):
        merge_adapters(model.lang_encoder)
