"""LoRA adapters: beside the layers that are meant, changing nothing at first; and merged into them:
the same logits from an ordinary LM."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from flamingo.models.flamingo.checkpoint import (
    export_matrices,
    export_openflamingo,
    is_ours,
    load_openflamingo,
    load_trainable,
    trainable_names,
    trainable_state_dict,
)
from flamingo.models.flamingo.merge import merge_adapters, save_language_model
from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.adapter_settings import ALL_LINEAR, AdapterSettings, Kind
from flamingo.modules.adapters import find_targets, has_adapters, inject_adapters
from flamingo.modules.freezing import is_adapter
from flamingo.modules.language_model import embedding_and_head
from flamingo.modules.meta import materialise, parameters_on_meta
from flamingo.modules.quantised import dequantise_linears, quantise_linears, quantised_names
from mmdata.errors import MissingExtraError, UserError
from tests.flamingo.models.flamingo.parity_case import make_tower
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, make_lm, open_gates, prompts, wrap

#: A tied LM, an untied one, and one whose layers are no nn.Linear.
FAMILIES = ("opt", "gpt_neox", "gpt2")
PROJECTIONS = {
    "opt": "self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj",
    "gpt_neox": "attention.query_key_value attention.dense",
    "llama": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    "mpt": "attn.Wqkv attn.out_proj",
    "gptj": "attn.k_proj attn.v_proj attn.q_proj attn.out_proj",
    "gpt_neo": "attn.attention.k_proj attn.attention.v_proj attn.attention.q_proj "
    "attn.attention.out_proj",
    "mistral": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    "qwen2": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    "qwen3": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    "gemma3": "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    "phi3": "self_attn.o_proj self_attn.qkv_proj",
    "gpt2": "attn.c_attn attn.c_proj",
}


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    return make_tower()


def settings_for(lm: Any, kind: Kind = "lora", **changes: Any) -> AdapterSettings:
    given: dict[str, Any] = {"kind": kind, "r": 2, "alpha": 4.0} | changes
    return AdapterSettings(**given).resolved(lm.config.model_type)


def adapted(family: str, tower: nn.Module, kind: Kind = "lora", **changes: Any) -> Flamingo:
    """A Flamingo as `create_model_and_transforms` puts it together."""
    lm = make_lm(family)
    settings = settings_for(lm, kind, **changes)
    if settings.is_quantised:
        quantise_linears(lm)
    inject_adapters(lm, settings)
    model = wrap(lm, tower=tower)
    open_gates(model, 0.5)
    return model


def with_adapters(family: str, tower: nn.Module, kind: Kind = "lora") -> Flamingo:
    """Adapters that do something: they start at a product of zero."""
    model = adapted(family, tower, kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name) or name.startswith("media_tokens."):
                parameter.normal_(std=0.2)
    return model


def logits(model: Flamingo) -> Any:
    ids, mask, images, counts = prompts()
    with torch.no_grad():
        return model(ids, mask, images=images, images_per_sample=counts).logits


def plain(family: str, tower: nn.Module) -> Flamingo:
    model = wrap(make_lm(family), tower=tower)
    open_gates(model, 0.5)
    return model


@pytest.mark.parametrize("family", CONFIGS)
def test_they_stand_beside_the_attention_and_change_nothing_at_first(
    family: str, tower: nn.Module
) -> None:
    lm = make_lm(family)
    names = find_targets(lm, settings_for(lm))
    assert len(names) == 4 * len(PROJECTIONS[family].split())
    model, without = adapted(family, tower), plain(family, tower)
    found = [name for name, _ in model.named_parameters() if is_adapter(name)]
    assert len(found) == 2 * len(names)
    for projection in PROJECTIONS[family].split():
        assert sum(f".{projection}.lora_A." in name for name in found) == 4
    assert torch.equal(logits(model), logits(without))
    ours = {name for name, _ in without.named_parameters() if is_ours(name)}
    assert set(trainable_names(model)) == ours | set(found)
    expected = trainable_state_dict(without)
    assert all(torch.equal(trainable_state_dict(model)[name], expected[name]) for name in ours)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_only_adapters_and_ours_get_gradients(kind: Kind, tower: nn.Module) -> None:
    model = with_adapters("gpt_neox", tower, kind).train()
    ids, mask, images, counts = prompts()
    model(ids, mask, images=images, images_per_sample=counts, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert is_ours(name) or is_adapter(name), name
        if is_adapter(name):
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name


def test_all_linear_and_suffixes_name_layers(tower: nn.Module) -> None:
    lm = make_lm("llama")
    every = find_targets(lm, settings_for(lm, targets=(ALL_LINEAR,)))
    assert len(every) == 4 * 7
    assert not any("lm_head" in name or "embed" in name for name in every)
    some = find_targets(lm, settings_for(lm, targets=("mlp.up_proj", "v_proj")))
    assert some[:2] == ["model.layers.0.self_attn.v_proj", "model.layers.0.mlp.up_proj"]
    assert len(some) == 8
    model = adapted("llama", tower, targets=(ALL_LINEAR,))
    assert not any(
        is_adapter(name) for name, _ in model.named_parameters() if "gated_cross_attn" in name
    )


@pytest.mark.parametrize("target", ["proj", "lm_head", "to_q", "embed_tokens"])
def test_a_target_that_names_no_layer_is_refused(target: str) -> None:
    lm = make_lm("llama")
    with pytest.raises(UserError) as refusal:
        find_targets(lm, settings_for(lm, targets=(target,)))
    assert str(refusal.value) == (
        f"--lora-targets {target}: no layer of LlamaForCausalLM is called that; there are "
        "self_attn.q_proj, self_attn.k_proj, self_attn.v_proj, self_attn.o_proj, mlp.gate_proj, "
        "mlp.up_proj, mlp.down_proj"
    )


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    lm = make_lm("gpt2")
    with pytest.raises(MissingExtraError, match=r"--lm-adapter lora needs peft.*\[lora\]'"):
        inject_adapters(lm, settings_for(lm))


def test_values_follow_from_the_seed_alone(tower: nn.Module) -> None:
    """Not from peft's draws, nor the device; and other random numbers stay where they were."""
    lm = make_lm("gpt_neox")
    before = torch.get_rng_state()
    inject_adapters(lm, settings_for(lm))
    assert torch.equal(torch.get_rng_state(), before)
    first = wrap(lm, tower=tower)
    with parameters_on_meta():
        other = make_lm("gpt_neox")
        inject_adapters(other, settings_for(other))
        second = wrap(other, tower=tower, initialise=False)
    materialise(second, "cpu")
    second.initialise(seed=1)
    values = {name: value for name, value in second.named_parameters() if is_adapter(name)}
    assert len(values) == 16
    for name, value in values.items():
        assert torch.equal(value, first.get_parameter(name)), name
        assert (value == 0).all() == ("lora_B" in name)
    second.initialise(seed=2)
    assert not torch.equal(next(iter(values.values())), next(iter_adapters(first)))


def iter_adapters(model: Flamingo) -> Any:
    return (value for name, value in model.named_parameters() if is_adapter(name))


def test_their_dropout_follows_the_mode_and_the_generator(tower: nn.Module) -> None:
    model = adapted("gpt_neox", tower, dropout=0.5)
    with torch.no_grad():
        for value in iter_adapters(model):
            value.fill_(0.2)
    model.eval()
    still = logits(model)
    assert torch.equal(logits(model), still)
    model.train()
    torch.manual_seed(3)
    dropped = logits(model)
    assert not torch.equal(dropped, still)
    assert not torch.equal(logits(model), dropped)
    torch.manual_seed(3)
    assert torch.equal(logits(model), dropped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_have_a_type_of_their_own(dtype: torch.dtype) -> None:
    lm = make_lm("gpt_neox").to(torch.bfloat16)
    inject_adapters(lm, settings_for(lm), dtype=dtype)
    kinds = {value.dtype for name, value in lm.named_parameters() if is_adapter(name)}
    assert kinds == {dtype}
    assert lm(torch.arange(6)[None]).logits.dtype is torch.bfloat16


def test_checkpoints_hold_them_and_those_without_leave_them_at_zero(tower: nn.Module) -> None:
    model, without = with_adapters("opt", tower), plain("opt", tower)
    other = adapted("opt", tower)
    load_trainable(other, trainable_state_dict(model))
    assert torch.equal(logits(other), logits(model))
    for load, weights in (
        (load_trainable, trainable_state_dict(without)),
        (load_openflamingo, export_openflamingo(without)),
    ):
        fresh = adapted("opt", tower)
        report = load(fresh, weights)
        assert torch.equal(logits(fresh), logits(without))
        assert all(group.expected for group in report.groups)


def test_a_file_with_the_whole_lm_fills_the_layers_below_adapters(tower: nn.Module) -> None:
    other = wrap(make_lm("opt"), tower=tower)
    with torch.no_grad():
        other.decoder_blocks[1].decoder_layer.self_attn.q_proj.weight.add_(0.5)  # type: ignore[union-attr]
    weights = export_openflamingo(other) | {
        name: value for name, value in other.state_dict().items() if ".decoder_layer." in name
    }
    model = adapted("opt", tower)
    load_openflamingo(model, weights)
    assert torch.equal(logits(model), logits(other))
    with pytest.raises(UserError, match=r"24 tensors .* which are in 4 bits here: .*--lm-path"):
        load_openflamingo(adapted("opt", tower, "qlora"), weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_lm_gives_the_same_logits_and_loads_like_any_other(
    family: str, tower: nn.Module, tmp_path: Path
) -> None:
    model = with_adapters(family, tower)
    before = logits(model)
    assert (logits(plain(family, tower)) - before).abs().max() > 1e-3
    assert has_adapters(model.lang_encoder)
    assert merge_adapters(model.lang_encoder) == 4 * len(PROJECTIONS[family].split())
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


def test_above_four_bits_they_are_merged_into_whole_weights(
    tower: nn.Module, tmp_path: Path
) -> None:
    model = with_adapters("llama", tower, "qlora")
    assert len(quantised_names(model)) == 4 * 7
    before = logits(model)
    assert merge_adapters(model.lang_encoder) == 16
    assert quantised_names(model) == []
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    merged, weights = logits(model), trainable_state_dict(model)
    save_language_model(model, tmp_path / "lm")
    other = wrap(AutoModelForCausalLM.from_pretrained(tmp_path / "lm"), tower=tower)
    load_trainable(other, weights)
    assert torch.equal(logits(other), merged)


def test_above_four_bits_they_start_at_the_lm_that_the_bits_stand_for(tower: nn.Module) -> None:
    lm = make_lm("gpt_neox")
    quantise_linears(lm)
    dequantise_linears(lm)
    whole = wrap(lm, tower=tower)
    open_gates(whole, 0.5)
    torch.testing.assert_close(
        logits(adapted("gpt_neox", tower, "qlora")), logits(whole), atol=1e-5, rtol=1e-5
    )


def test_weights_that_are_not_finite_are_named(tower: nn.Module) -> None:
    model = with_adapters("gpt_neox", tower)
    layer = model.decoder_blocks[1].decoder_layer.attention.query_key_value
    with torch.no_grad():
        layer.lora_B["default"].weight[0, 0] = float("nan")  # type: ignore[index,union-attr]
    with pytest.raises(UserError, match=r"adapter of gpt_neox\.layers\.1\..*query_key_value: NaN"):
        merge_adapters(model.lang_encoder)
