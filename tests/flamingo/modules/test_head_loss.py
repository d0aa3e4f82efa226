"""A head that gives the loss gives that of its logits, with the same gradients."""

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, GraniteConfig

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules import chunked_loss, head_loss
from flamingo.modules.chunked_loss import targets_of_chunk
from flamingo.modules.head_loss import HeadLoss
from flamingo.modules.loss import IGNORED, find_target_positions
from mmdata.errors import UserError
from tests.flamingo.models.flamingo.tiny_lms import (
    IMAGE,
    PAD,
    VOCAB,
    make_flamingo,
    make_lm,
    prompts,
    wrap,
)
from tests.flamingo.modules.test_chunked_loss import given, gradients, plain_loss


def trained(model: Flamingo) -> list[Tensor]:
    """Loss and gradients of all that trains."""
    ids, mask, images, counts = prompts()
    labels = ids.masked_fill((ids == PAD) | (ids == IMAGE), IGNORED)
    positions = find_target_positions(labels)
    model.train()
    out = model(ids, mask, labels, images, counts, target_positions=positions)
    out.loss.backward()
    assert int(out.num_targets) == len(positions)
    grown = [one.grad for one in model.parameters() if one.grad is not None]
    return [out.loss.detach(), *grown]


def test_every_family_gives_its_loss_in_the_head(lm_family: str) -> None:
    expected = trained(make_flamingo(lm_family, loss_kernel="plain"))
    found = trained(make_flamingo(lm_family, loss_kernel="chunked"))
    assert len(expected) == len(found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", ["opt", "gpt_neox"])  # a tied head, an untied one
@pytest.mark.parametrize("kernel", ["chunked", "torch"])
def test_a_head_that_trains_and_rows_in_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch, family: str, kernel: Any
) -> None:
    monkeypatch.setattr(chunked_loss, "targets_of_chunk", lambda _: 4)
    how: dict[str, Any] = {"freeze": (), "train_output_rows": True}
    expected = trained(make_flamingo(family, loss_kernel="plain", **how))
    found = trained(make_flamingo(family, loss_kernel=kernel, **how))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_auto_takes_chunks_where_there_is_more_than_one() -> None:
    head = HeadLoss(make_lm("llama"))
    assert not head.is_asked_for(targets_of_chunk(VOCAB))
    assert head.is_asked_for(targets_of_chunk(VOCAB) + 1)
    assert not HeadLoss(make_lm("llama"), "plain").is_asked_for(10**9)


def test_an_lm_that_changes_its_logits_is_not_asked() -> None:
    config = GraniteConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        logits_scaling=8.0,
    )
    lm = AutoModelForCausalLM.from_config(config)
    assert not HeadLoss(lm).is_asked_for(10**9)
    with pytest.raises(UserError, match=r"chunked: GraniteForCausalLM .*logits_scaling.*plain"):
        HeadLoss(lm, "chunked")


def test_an_lm_that_changes_them_and_says_it_nowhere_is_found_out() -> None:
    lm: Any = make_lm("llama")
    forward = lm.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 2
        return out

    lm.forward = doubled
    with pytest.raises(UserError, match="changes its logits behind its head"):
        trained(wrap(lm, loss_kernel="chunked"))


def test_liger_is_called_with_the_rows_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="needs the package liger-kernel"):
        HeadLoss(make_lm("llama"), "liger")

    class _Fused(nn.Module):
        def __init__(self, ignore_index: int, reduction: str) -> None:
            super().__init__()
            assert (ignore_index, reduction) == (IGNORED, "sum")

        def forward(self, weight: Tensor, hidden: Tensor, targets: Tensor, bias: Any) -> Tensor:
            return plain_loss(hidden, weight, bias, targets, None)

    package = types.ModuleType("liger_kernel.transformers")
    package.LigerFusedLinearCrossEntropyLoss = _Fused  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", types.ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)
    inputs = given(with_bias=True, with_rows=True)
    expected = gradients(plain_loss(*inputs), inputs)
    found = gradients(head_loss._load("liger")(*inputs), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="runs on GPUs alone"):
        trained(make_flamingo("llama", loss_kernel="liger"))
    with FakeTensorMode():  # its memory is told by chunks of the size of its own
        hidden, weight = torch.empty(64, 8), torch.empty(64, 8)
        head_loss._load("liger")(hidden, weight, None, torch.empty(64, dtype=torch.long), None)
