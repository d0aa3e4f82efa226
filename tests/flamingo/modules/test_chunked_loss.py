"""The loss in chunks is the loss, with the same gradients, in a part of the memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from flamingo.memory.live import LiveMemory
from flamingo.modules.chunked_loss import ReplacedRows, chunked_loss, targets_of_chunk
from flamingo.modules.loss import IGNORED

_IDS = (17, 18)


def plain_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, own: ReplacedRows | None
) -> Tensor:
    """From all logits, as a head and the hooks of the media tokens make them."""
    logits = F.linear(hidden, weight, bias)
    if own is not None:
        ids = torch.tensor(own.ids)
        offset = None if bias is None else bias[ids]
        logits = logits.index_copy(-1, ids, F.linear(hidden, own.rows.to(hidden.dtype), offset))
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")


def given(
    *, with_bias: bool, with_rows: bool, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, ReplacedRows | None]:
    generator = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    targets = torch.randint(0, 19, (23,), generator=generator)
    targets[[3, 11]] = IGNORED
    targets[[0, 5, 22]] = _IDS[0]
    bias = made(19) if with_bias else None
    return (
        made(23, 8),
        made(19, 8),
        bias,
        targets,
        ReplacedRows(_IDS, made(2, 8)) if with_rows else None,
    )


def gradients(found: Tensor, inputs: Any) -> list[Tensor]:
    hidden, weight, bias, _, own = inputs
    of = [one for one in (hidden, weight, bias, own and own.rows) if one is not None]
    return [found.detach(), *torch.autograd.grad(found / 7, of, retain_graph=True)]


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_chunks_change_neither_loss_nor_gradients(
    with_bias: bool, with_rows: bool, chunk: int
) -> None:
    inputs = given(with_bias=with_bias, with_rows=with_rows)
    expected = gradients(plain_loss(*inputs), inputs)
    loss = chunked_loss(*inputs, chunk=chunk)
    for one, other in zip(gradients(loss, inputs), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(loss, inputs), expected, strict=True):  # the graph was kept
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_rounds_no_more_than_the_plain_way(autocast: bool) -> None:
    half = torch.float32 if autocast else torch.bfloat16
    exact = given(with_bias=True, with_rows=True)
    rough = given(with_bias=True, with_rows=True, dtype=half)
    expected = gradients(plain_loss(*exact), exact)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = gradients(chunked_loss(*rough, chunk=5), rough)
        plain = gradients(plain_loss(*rough), rough)
    assert found[0].dtype == torch.float32
    for one, other, true in zip(found, plain, expected, strict=True):
        assert one.dtype == other.dtype
        assert (one - true).norm() <= 2 * (other - true).norm() + 1e-6


def test_only_what_trains_gets_a_gradient_and_without_gradients_none_is_made() -> None:
    hidden, weight, bias, targets, own = given(with_bias=True, with_rows=True)
    assert bias is not None
    frozen = (hidden, weight.detach(), bias.detach(), targets, own)
    chunked_loss(*frozen, chunk=5).backward()
    assert hidden.grad is not None
    assert weight.grad is None
    with torch.no_grad():
        assert chunked_loss(*frozen, chunk=5).grad_fn is None


def test_no_targets_are_a_loss_of_zero_with_gradients_of_zero() -> None:
    hidden, weight, _, targets, own = given(with_bias=False, with_rows=True)
    assert own is not None
    loss = chunked_loss(hidden[:0], weight, None, targets[:0], own)
    loss.backward()
    assert loss == 0
    assert own.rows.grad is not None
    assert not own.rows.grad.any()


def peak(chunked: bool) -> int:
    """Bytes at most beside inputs, of 32 x 256 targets, width 256 and 50,000 words."""
    with FakeTensorMode():
        hidden = torch.empty(32 * 256, 256, requires_grad=True)
        weight = torch.empty(50_000, 256)
        targets = torch.empty(32 * 256, dtype=torch.long)
        rows = torch.empty(2, 256, requires_grad=True)
        with (live := LiveMemory()):
            live.ignore([hidden, weight, targets, rows])
            if chunked:
                chunked_loss(hidden, weight, None, targets, ReplacedRows((1, 2), rows)).backward()
            else:
                logits = F.linear(hidden, weight)
                F.cross_entropy(logits, targets, reduction="sum").backward()
        return live.peak.total()


def test_logits_and_their_gradient_take_less_than_an_eighth() -> None:
    assert peak(chunked=True) < peak(chunked=False) / 8


def test_a_chunk_is_of_128_megabytes_and_of_512_targets_at_least() -> None:
    assert targets_of_chunk(50_000) == 671
    assert targets_of_chunk(262_144) == 512
