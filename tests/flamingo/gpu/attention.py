"""Attention as one kernel with a name, computed on the host.

`scaled_dot_product_attention` chooses among kernels of the GPU, of which the host has none; taken
apart it would count as a dozen. So calls on the pretended GPU are computed by torch's own kernels
of the host, on the tensors inside, and are told to the watch: which kernel a GPU could take, on
what shapes. `VARLEN` does likewise for `torch.nn.attention.varlen`, which has no kernel of the host
at all: each document by itself.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.attention.varlen
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from tests.flamingo.gpu.watch import Watch

_HALF = (torch.bfloat16, torch.float16)
_varlen: Any = torch.ops.torch_attn


def kind_of_call(query: Tensor, mask: Tensor | None) -> str:
    """The kernel that a GPU takes for a call, in a word or two."""
    if mask is not None:
        return "math" if mask.requires_grad else "masked"
    return "flash" if query.dtype in _HALF else "efficient"


class _Attention(torch.autograd.Function):
    """Values and gradients by the host's kernel; shapes alone for tensors without values."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        watch: "Watch",
        kind: str,
        causal: bool,
        options: dict[str, Any],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        ctx.watch, ctx.kind, ctx.causal, ctx.options = watch, kind, causal, options
        ctx.save_for_backward(query, key, value, mask)
        watch.attended(kind, query, key, causal=causal)
        return watch.wrap(_on_host(query, key, value, mask, causal=causal, **options))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        query, key, value, mask = ctx.saved_tensors
        watch = ctx.watch
        watch.attended(ctx.kind, query, key, causal=ctx.causal, is_backward=True)
        inside = [_inside(one).detach() for one in (query, key, value)]
        if inside[0].is_meta:
            found: Any = [torch.empty_like(one) for one in inside]
            return (None,) * 4 + tuple(map(watch.wrap, found)) + (None,)
        with torch.enable_grad():
            inside = [one.requires_grad_() for one in inside]
            out = _on_host(*inside, mask, causal=ctx.causal, **ctx.options)
            found = torch.autograd.grad(out, inside, _inside(gradient))
        return (None,) * 4 + tuple(map(watch.wrap, found)) + (None,)


def _inside(value: Any) -> Any:
    return getattr(value, "host", value)


def _on_host(
    query: Any, key: Any, value: Any, mask: Any, *, causal: bool, **options: Any
) -> Tensor:
    query, key, value, mask = map(_inside, (query, key, value, mask))
    if query.is_meta:
        return torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device="meta")
    return _HOST_ATTENTION(query, key, value, attn_mask=mask, is_causal=causal, **options)


_HOST_ATTENTION = F.scaled_dot_product_attention


def stand_in(watch: "Watch") -> Callable[..., Tensor]:
    """What takes the place of `F.scaled_dot_product_attention` while a watch is on."""

    def scaled_dot_product_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        options = {"scale": scale, "enable_gqa": enable_gqa}
        if not hasattr(query, "host"):
            return _HOST_ATTENTION(
                query,
                key,
                value,
                attn_mask,
                dropout_p,
                is_causal,
                **options,  # type: ignore[arg-type]
            )
        if dropout_p:
            raise NotImplementedError("attention with dropout on the pretended GPU")
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(dtype)
        kind = kind_of_call(query, attn_mask)
        with torch.autocast("cuda", enabled=False):
            found: Any = _Attention.apply(
                watch, kind, is_causal, options, query, key, value, attn_mask
            )
        return found  # type: ignore[no-any-return]

    return scaled_dot_product_attention


def _by_document(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends_q: Tensor,
    ends_k: Tensor | None,
    *,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """(tokens, heads, width) -> the same: each document attends to itself alone.

    Args:
        query: of all documents, one behind the other; `key` and `value` may have fewer heads.
        key: likewise.
        value: likewise.
        ends_q: where documents begin in `query`, and the end of the last.
        ends_k: in `key`; None: in the same places.
        causal: whether a position sees only those before it.
        scale: of the scores; None: by the width.
    """
    ends_of_q = ends_q.tolist()
    ends_of_k = ends_of_q if ends_k is None else ends_k.tolist()
    found = []
    for i in range(len(ends_of_q) - 1):
        rows, others = slice(*ends_of_q[i : i + 2]), slice(*ends_of_k[i : i + 2])
        if rows.start == rows.stop:
            continue
        parts = [
            one[at].transpose(0, 1).unsqueeze(0)
            for one, at in ((query, rows), (key, others), (value, others))
        ]
        out = _HOST_ATTENTION(
            *parts, is_causal=causal, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
        found.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(found)


def _varlen_forward(
    watch: "Watch",
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends_q: Tensor,
    ends_k: Tensor | None,
    _max_q: int,
    _max_k: int,
    causal: bool = False,
    scale: float | None = None,
    *_others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    watch.attended("varlen", query, key, causal=causal)
    if query.is_meta:
        out = torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device="meta")
    else:
        out = _by_document(query, key, value, ends_q, ends_k, causal=causal, scale=scale)
    sums = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    return out, sums, query.new_empty(2, dtype=torch.uint64)


def _varlen_backward(
    watch: "Watch",
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _out: Tensor,
    _sums: Tensor,
    ends_q: Tensor,
    ends_k: Tensor | None,
    _max_q: int,
    _max_k: int,
    causal: bool,
    _random: Tensor,
    scale: float | None = None,
    *_others: Any,
) -> tuple[Tensor, ...]:
    watch.attended("varlen", query, key, causal=causal, is_backward=True)
    inside = [one.detach() for one in (query, key, value)]
    if query.is_meta:
        return tuple(torch.empty_like(one) for one in inside)
    with _autograd_anew(), torch.enable_grad():
        inside = [one.requires_grad_() for one in inside]
        out = _by_document(*inside, ends_q, ends_k, causal=causal, scale=scale)
        return torch.autograd.grad(out, inside, gradient)


def _autograd_anew() -> AbstractContextManager[None]:
    """Inside of an operation nothing is recorded for a backward pass; in here it is again."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for name in (
        "AutogradFunctionality",
        "ADInplaceOrView",
        "AutogradOther",
        "AutogradNestedTensor",
    ):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, name))
    included = torch._C._dispatch_tls_local_include_set().add(torch._C.DispatchKey.ADInplaceOrView)
    return torch._C._ForceDispatchKeyGuard(included, excluded)


#: Operations that take the place of `torch.nn.attention.varlen`'s own, by those.
VARLEN: dict[Any, Callable[..., Any]] = {
    _varlen._varlen_attn.default: _varlen_forward,
    _varlen._varlen_attn_backward.default: _varlen_backward,
}
