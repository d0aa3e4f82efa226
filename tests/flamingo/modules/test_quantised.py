"""The LM's matrices in 4 bits: which, how near they are to the whole ones, and what is left."""

import gc
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from flamingo.modules.meta import parameters_on_meta
from flamingo.modules.quantised import (
    BLOCK,
    dequantise_linears,
    is_quantised,
    linear_layers,
    quantise_linears,
    quantised_names,
    stored_bytes,
)
from mmdata.errors import MissingExtraError, UserError
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, make_lm


def logits(lm: nn.Module) -> Tensor:
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        found: Tensor = lm(ids).logits
    return found


def untrained(family: str) -> nn.Module:
    """With the weights that transformers begins with: small ones, as trained LMs have."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[family](hidden_size=64, head_dim=16)).eval()


@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "gpt2"])
def test_all_matrices_of_the_layers_are_quantised_and_nothing_else(family: str) -> None:
    lm = make_lm(family)
    whole = {name: value.detach().clone() for name, value in lm.named_parameters()}
    assert quantise_linears(lm) == len(quantised_names(lm)) == len(list(linear_layers(lm)))
    assert all(".embed" not in name and "head" not in name for name in quantised_names(lm))
    for name, value in lm.named_parameters():
        if name in quantised_names(lm):
            assert not value.requires_grad
        else:
            assert torch.equal(value, whole[name])
            assert value.dim() == 1 or not any(f".{n}." in name for n in ("layers", "h", "blocks"))
    check_the_whole_values_compute_the_same(lm)


def check_the_whole_values_compute_the_same(lm: nn.Module) -> None:
    before = logits(lm)
    assert dequantise_linears(lm) > 0
    assert quantised_names(lm) == []
    torch.testing.assert_close(logits(lm), before, atol=1e-5, rtol=1e-5)


def test_weights_and_logits_stay_near() -> None:
    lm = untrained("llama")
    expected = logits(lm)
    whole = {name: layer.weight.detach().clone() for name, layer in linear_layers(lm)}
    quantise_linears(lm)
    for name, layer in linear_layers(lm):
        error = (layer.weight.to(torch.float32) - whole[name]).norm() / whole[name].norm()
        assert 0.05 < error < 0.12, name  # 0.09 for normal values, by the format
    error = (logits(lm) - expected).norm() / expected.norm()
    assert 0.01 < error < 0.2


def test_a_weight_takes_little_more_than_four_bits() -> None:
    layer = nn.Linear(1024, 256, bias=False)
    lm = holder(layer)
    full = stored_bytes(layer.weight)
    assert full == layer.weight.numel() * 4
    quantise_linears(lm)
    per_weight = 8 * stored_bytes(layer.weight) / layer.weight.numel()
    assert per_weight == pytest.approx(4 + 8 / BLOCK + 32 / 1024)


def test_the_whole_matrix_is_gone() -> None:
    lm = make_lm("llama")
    whole = [weakref.ref(layer.weight.untyped_storage()) for _, layer in linear_layers(lm)]
    quantise_linears(lm)
    gc.collect()
    assert [one() for one in whole] == [None] * len(whole)


class OneAtATime(Mapping[str, Tensor]):
    """Stored weights that are made when they are read, and that have to go before the next."""

    def __init__(self, lm: nn.Module) -> None:
        self._shapes = {name: value.shape for name, value in lm.named_parameters()}
        self._alive: list[Any] = []

    def __getitem__(self, name: str) -> Tensor:
        assert all(one() is None for one in self._alive), name
        value = torch.randn(self._shapes[name])
        self._alive.append(weakref.ref(value))
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def test_of_matrices_that_are_read_one_lives_at_a_time() -> None:
    with parameters_on_meta():
        lm = make_lm("gpt_neox")
    assert quantise_linears(lm, stored=OneAtATime(lm), device="cpu") == 16
    for _, layer in linear_layers(lm):
        assert is_quantised(layer.weight)
        assert layer.weight.device.type == "cpu"


def holder(layer: nn.Linear) -> nn.Module:
    """An LM of two equal layers."""
    lm = make_lm("llama")
    layers: Any = lm.get_submodule("model.layers")
    for one in layers:
        for name, _ in list(one.named_children()):
            delattr(one, name)
        one.matrix = layer
    return lm


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 8).map(lambda n: 8 * n),
    columns=st.sampled_from([8, 16, 48, 64, 128, 320]),
    parts=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 99),
)
def test_parts_of_the_rows_stand_for_those_rows(
    rows: int, columns: int, parts: int, seed: int
) -> None:
    layer = nn.Linear(columns, rows, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(seed))
    lm = holder(layer)
    if rows // parts * columns % BLOCK:
        with pytest.raises(UserError, match=r"no multiple of 64|cannot be cut into"):
            quantise_linears(lm, num_parts=parts)
        return
    quantise_linears(lm, num_parts=parts)
    whole = layer.weight.to(torch.float32)
    cut = [part.to(torch.float32) for part in torch.chunk(layer.weight.detach(), parts)]
    assert torch.equal(torch.cat(cut), whole)


def test_rows_that_cannot_be_cut_are_named() -> None:
    lm = make_lm("llama")
    with pytest.raises(UserError) as refusal:
        quantise_linears(lm, num_parts=3)
    assert str(refusal.value) == (
        "--lm-adapter qlora: model.layers.0.self_attn.q_proj.weight: its 32 rows cannot be cut "
        "into 3 equal parts; use another number of ranks, or --parallel ddp"
    )


def test_an_lm_without_linear_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"GPT2LMHeadModel has no nn.Linear in its layers"):
        quantise_linears(make_lm("gpt2"))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "its weights lack model.layers.0.self_attn.q_proj.weight"),
        (
            {"model.layers.0.self_attn.q_proj.weight": torch.zeros(8, 8)},
            r"q_proj.weight: expected \(32, 32\), got \(8, 8\)",
        ),
    ],
)
def test_files_that_do_not_fit_are_named(stored: dict[str, Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        quantise_linears(make_lm("llama"), stored=stored)


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.quantize_.workflows.nf4", None)
    monkeypatch.delitem(
        sys.modules, "torchao.quantization.quantize_.workflows.nf4.nf4_tensor", raising=False
    )
    with pytest.raises(MissingExtraError, match=r"qlora needs torchao .*\[lora\]'"):
        quantise_linears(make_lm("llama"))
