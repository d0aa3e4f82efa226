"""Kernels for the CPU behind `torch.nn.attention.varlen`, which has them for GPUs alone.

They are as slow as they are plain: each document goes alone, and its mask is written out. Importing
this module gives them to torch.
"""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen  # noqa: F401  (it defines the operators)

#: Calls since the import: (tokens, documents, longest, window) of each.
CALLS: list[tuple[int, int, int, tuple[int, int]]] = []


def _spans(bounds: Tensor) -> list[slice]:
    ends = bounds.tolist()
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def _alone(tensor: Tensor, span: slice, heads: int) -> Tensor:
    """(T, h, E) -> (H, l, E) of one document, keys and values repeated for every head."""
    own = tensor[span].transpose(0, 1).float()
    return own.repeat_interleave(heads // len(own), dim=0)


def _weights(query: Tensor, key: Tensor, window: Any, scale: float) -> Tensor:
    """(H, l, l) of one document."""
    position = torch.arange(query.shape[1])
    distance = position.unsqueeze(1) - position
    seen = distance >= -window[1]
    if window[0] >= 0:
        seen &= distance <= window[0]
    scores = query @ key.transpose(1, 2) * scale
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    assert cu_seq_q.dtype == torch.int32
    assert cu_seq_k is not None
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert int(cu_seq_q.diff().max()) <= max_q == max_k
    assert window_size is not None
    assert window_size[1] == 0
    CALLS.append((len(query), len(cu_seq_q) - 1, max_q, (window_size[0], window_size[1])))
    heads, factor = query.shape[1], query.shape[2] ** -0.5 if scale is None else scale
    found = []
    for span in _spans(cu_seq_q):
        q, k, v = (_alone(one, span, heads) for one in (query, key, value))
        found.append((_weights(q, k, window_size, factor) @ v).transpose(0, 1))
    out = torch.cat(found).to(query.dtype)
    sums = torch.zeros(query.shape[1], len(query))
    return out, sums, torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    rng_state: Tensor,
    scale: float | None = None,
    window_size: list[int] | None = None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    heads, factor = query.shape[1], query.shape[2] ** -0.5 if scale is None else scale
    found: list[list[Tensor]] = [[], [], []]
    for span in _spans(cu_seq_q):
        q, k, v, upstream = (_alone(one, span, heads) for one in (query, key, value, grad_out))
        weights = _weights(q, k, window_size, factor)
        of_weights = upstream @ v.transpose(1, 2)
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * factor
        gradients = (of_scores @ k, of_scores.mT @ q, weights.mT @ upstream)
        for one, gradient, like in zip(found, gradients, (query, key, value), strict=True):
            grouped = gradient.unflatten(0, (like.shape[1], -1)).sum(1)
            one.append(grouped.transpose(0, 1).to(like.dtype))
    dq, dk, dv = map(torch.cat, found)
    return dq, dk, dv


torch.library.register_kernel("torch_attn::_varlen_attn", "cpu", _forward)
torch.library.register_kernel("torch_attn::_varlen_attn_backward", "cpu", _backward)
