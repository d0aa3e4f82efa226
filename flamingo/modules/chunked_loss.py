"""The cross-entropy of many targets over a large vocabulary, without all of their logits at once.

Logits, their logarithms and their gradient are as wide as the vocabulary: of 8,192 targets and
50,000 words each of them is 1.6 GB in float32. Here the head's input is taken in chunks of targets;
the gradient of a chunk is made with its loss, while its logits are there, and nothing is computed
again: what waits for the backward pass is as wide as the model. The arithmetic of a chunk is that
of `torch.nn.functional.cross_entropy`.

Dimensions: n targets, V vocabulary rows, D width of the model, r rows of our own.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from flamingo.modules.compute import compute_type
from flamingo.modules.loss import IGNORED

#: Logits of a chunk (128 MiB in float32); and targets of one, where the vocabulary is larger yet,
#: so that reading the weights of the head is not all that a chunk does.
_CHUNK_LOGITS, _LEAST_TARGETS = 2**25, 512


@dataclass(frozen=True, slots=True)
class ReplacedRows:
    """Rows that stand in place of some of the head's, with parameters of their own.

    Attributes:
        ids: of the tokens.
        rows: (r, D) of their weights, in this order.
    """

    ids: tuple[int, ...]
    rows: Tensor


def targets_of_chunk(vocabulary: int) -> int:
    """Targets whose logits are made at once, of a vocabulary of so many rows."""
    return max(_LEAST_TARGETS, _CHUNK_LOGITS // vocabulary)


def chunked_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    own_rows: ReplacedRows | None = None,
    *,
    chunk: int | None = None,
) -> Tensor:
    """The cross-entropy summed over targets, in chunks; 0-d, at least float32.

    Args:
        hidden: (n, D) the head's input.
        weight: (V, D) of the head.
        bias: (V,), or None.
        targets: (n,) int64; -100 counts for nothing.
        own_rows: in place of some of the weights.
        chunk: targets of one; None: as many as `targets_of_chunk` says.
    """
    dtype = compute_type(hidden)
    ids, rows = ((), None) if own_rows is None else (own_rows.ids, own_rows.rows)
    chunk = chunk or targets_of_chunk(len(weight))
    settings = _Settings(dtype, ids, chunk, torch.is_grad_enabled())
    loss: Tensor = _ChunkedLoss.apply(hidden, weight, bias, rows, targets, settings)
    return loss


@dataclass(frozen=True, slots=True)
class _Settings:
    """What is no tensor of a loss in chunks.

    Attributes:
        dtype: of matrix products.
        ids: of the rows of our own.
        chunk: targets at once.
        with_gradients: whether there will be a backward pass.
    """

    dtype: torch.dtype
    ids: tuple[int, ...]
    chunk: int
    with_gradients: bool


class _ChunkedLoss(torch.autograd.Function):
    """`chunked_loss`: gradients are made in the forward pass, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        targets: Tensor,
        settings: _Settings,
    ) -> Tensor:
        given = (hidden, weight, bias, rows)
        needed = [settings.with_gradients and one for one in ctx.needs_input_grad[:4]]
        with torch.autocast(hidden.device.type, enabled=False):
            loss, gradients = _loss_and_gradients(*given, targets, settings, needed)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if one is None else one.dtype for one in given]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        scaled = [
            None if one is None else _scaled(one, upstream, dtype)
            for one, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None)


def _scaled(gradient: Tensor, upstream: Tensor, dtype: torch.dtype) -> Tensor:
    """The product, rounded once."""
    return (gradient.to(torch.promote_types(gradient.dtype, dtype)) * upstream).to(dtype)


def _loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor | None,
    targets: Tensor,
    settings: _Settings,
    needed: list[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """(loss, gradients of the first four where they are needed)."""
    dtype, ids = settings.dtype, settings.ids
    exact = torch.promote_types(dtype, torch.float32)
    hidden, matrix = hidden.to(dtype), weight.to(dtype)
    offset = None if bias is None else bias.to(dtype)
    own = own_logits = None
    if rows is not None:
        own = rows.to(dtype)
        own_offset = None if offset is None else torch.stack([offset[one] for one in ids])
        own_logits = F.linear(hidden, own, own_offset)
    sums = _Sums(hidden, weight, bias, rows, needed, exact)
    loss = hidden.new_zeros((), dtype=exact)
    is_target = (targets != IGNORED).unsqueeze(1)
    for start in range(0, len(hidden), settings.chunk):
        part = slice(start, start + settings.chunk)
        logits = F.linear(hidden[part], matrix, offset)
        for number, one in enumerate(ids):
            assert own_logits is not None
            logits[:, one] = own_logits[part, number]
        logarithms = logits.log_softmax(1, dtype=exact)
        del logits
        loss += F.nll_loss(logarithms, targets[part], ignore_index=IGNORED, reduction="sum")
        if any(needed):
            of_target = targets[part].clamp(min=0).unsqueeze(1)
            gradient = logarithms.exp_().scatter_add_(
                1, of_target, logarithms.new_full((), -1.0).expand(of_target.shape)
            )
            sums.add(part, gradient.to(dtype), matrix, own, ids, is_target[part])
            del gradient
        del logarithms
    return loss, sums.gradients()


class _Sums:
    """Gradients of a loss, added up over chunks of targets."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        needed: list[bool],
        exact: torch.dtype,
    ) -> None:
        """Args:
        hidden: in the type of matrix products; its gradient is too, the others' are exact.
        weight, bias, rows: of the head.
        needed: of which of the four a gradient is.
        exact: the type that many numbers are added up in.
        """
        of_hidden, of_weight, of_bias, of_rows = needed
        self._input = hidden
        self.hidden = torch.empty_like(hidden) if of_hidden else None
        self.weight = torch.zeros_like(weight, dtype=exact) if of_weight else None
        self.bias = torch.zeros_like(bias, dtype=exact) if of_bias and bias is not None else None
        self.rows = torch.zeros_like(rows, dtype=exact) if of_rows and rows is not None else None

    def gradients(self) -> list[Tensor | None]:
        """Those of hidden, weight, bias and rows; None where it is not needed."""
        return [self.hidden, self.weight, self.bias, self.rows]

    def add(
        self,
        part: slice,
        gradient: Tensor,
        matrix: Tensor,
        own: Tensor | None,
        ids: tuple[int, ...],
        is_target: Tensor,
    ) -> None:
        """A chunk's.

        Args:
            part: its place.
            gradient: (targets, V) of its logits, but for `is_target`; written into.
            matrix: (V, D) the head's weights.
            own: (r, D) in place of some of them.
            ids: which these are.
            is_target: (targets, 1) whether each counts.
        """
        counted = self._input[part] * is_target
        if self.bias is not None:
            self.bias += gradient.T @ is_target.to(gradient.dtype).squeeze(1)
        of_own = None
        if own is not None:
            of_own = torch.stack([gradient[:, one] for one in ids], dim=1)
            for one in ids:
                gradient[:, one] = 0
            if self.rows is not None:
                self.rows += of_own.T.to(self.rows.dtype) @ counted.to(self.rows.dtype)
        if self.hidden is not None:
            found = torch.mm(gradient, matrix, out=self.hidden[part])
            if of_own is not None and own is not None:
                found.addmm_(of_own, own)
            found.mul_(is_target)
        if self.weight is not None:
            if self.weight.dtype == gradient.dtype:
                self.weight.addmm_(gradient.T, counted)
            else:
                self.weight += gradient.T @ counted
