"""Attention of an LM of transformers without masks that nobody needs.

Two kinds of text need no mask of positions by positions:

- rows that are padded on the right: what is real stands before all padding, so that causality alone
  hides it, and the logits of padding are never read;
- packed documents: attention takes their bounds, and computes no score between two of them.

An LM asks a registry of transformers for both its mask and its attention. `adopt_attention` gives
it a name there that is ours: the mask is left out, or the documents stand in its place
(`Documents`), and go down to the attention of each block as a mask would, so that a block that is
computed again in the backward pass finds them too. `text_rows` says for the time of a pass which
kind of text it has; outside of it, as where text is generated, masks are those of transformers'
sdpa. Masks are what it reads from the device for; none is read here.

On a GPU documents go through `varlen_attn` of torch, which takes half precision; on a CPU, which
has no such kernel, each goes alone. Where a GPU computes in float32, or scores have a bias or
dropout, a mask is made of the documents after all, once a pass.

Not adopted are LMs with an attention of their own, which transformers calls eager (GPT-J, GPT-Neo
and MPT, whose scores have a bias of ALiBi), and kernels that somebody asked for: their masks are as
they were, and cost no read from the device either.

Dimensions: B sequences, L positions, n documents, H heads, E width of a head.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from flamingo.modules.documents import Documents, seen

_varlen_attn: Any = None
with suppress(ImportError):  # in a torch before it
    from torch.nn.attention.varlen import varlen_attn as _varlen_attn

#: Of the functions below in the registries of transformers, which checks them as it does sdpa.
NAME = "sdpa_without_masks"
_WIDEST_HEAD = 256


@dataclass(frozen=True, slots=True)
class _Rows:
    """Text of which no mask is needed."""

    documents: Documents | None


class _Causal:
    """Stands for a mask on the CPU, where causality alone does.

    Without any mask transformers leaves it to the kernel to group heads, which rounds gradients of
    keys in another way than under a mask, where it repeats them. In place of this they are too.
    """


_CAUSAL = _Causal()
_rows: ContextVar[_Rows | None] = ContextVar("rows of text", default=None)


@contextmanager
def text_rows(*, right_padded: bool, documents: Documents | None = None) -> Iterator[None]:
    """What an LM that was adopted reads while this lasts.

    Args:
        right_padded: every row has its padding behind all that is real, and nobody reads the
            logits of padding.
        documents: which rows are packed with.
    """
    token = _rows.set(_Rows(documents) if right_padded or documents is not None else None)
    try:
        yield
    finally:
        _rows.reset(token)


def adopt_attention(lang_encoder: nn.Module) -> bool:
    """Give an LM this module's attention, where it has that of transformers' sdpa.

    Returns:
        Whether it has it now.
    """
    lm: Any = lang_encoder
    name = getattr(lm.config, "_attn_implementation", None)
    if name == "sdpa" and lm._can_set_attn_implementation() and not _asks_for_sdpa(lm):
        lm.set_attn_implementation(NAME)
        name = NAME
    return bool(name == NAME)


def has_own_attention(lang_encoder: nn.Module) -> bool:
    """Whether an LM was adopted."""
    lm: Any = lang_encoder
    return getattr(lm.config, "_attn_implementation", None) == NAME


def _asks_for_sdpa(lm: nn.Module) -> bool:
    """Whether an LM does something of its own where its attention is called sdpa."""
    code = inspect.getsource(sys.modules[type(lm).__module__])
    return '_attn_implementation == "sdpa"' in code


def _mask(*, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    """What a block's attention is given as its mask; arguments are those of `sdpa_mask`."""
    rows = _rows.get()
    if rows is not None and "allow_is_bidirectional_skip" not in kwargs:
        attention_mask = None
        if rows.documents is not None:
            return replace(rows.documents, window=kwargs.get("local_size"))
    mask = sdpa_mask(attention_mask=attention_mask, **kwargs)
    is_on_cpu = torch.device(kwargs.get("device", "cpu")).type == "cpu"
    return _CAUSAL if mask is None and rows is not None and is_on_cpu else mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a block; arguments are those of `sdpa_attention_forward`.

    Queries, keys and values are (B, H, L, E), of keys and values with as many heads or fewer.
    """
    if attention_mask is _CAUSAL:
        attention_mask = None
        repeats = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    if isinstance(attention_mask, Documents):
        documents, attention_mask = attention_mask, None
        plain = not dropout and kwargs.get("position_bias") is None
        if plain and query.device.type == "cpu":
            return _each_alone(module, query, key, value, documents, scaling, kwargs), None
        if plain and (half := _in_half(query, key, value)) is not None:
            return _varlen(*half, documents, scaling), None
        attention_mask = documents.mask
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )


def _in_half(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Queries, keys and values as `varlen_attn` takes them; None where it does not."""
    device, tensors = query.device.type, (query, key, value)
    if torch.is_autocast_enabled(device):
        half = torch.get_autocast_dtype(device)
        tensors = (query.to(half), key.to(half), value.to(half))
    widths = {one.shape[-1] for one in tensors}
    takes = (
        _varlen_attn is not None
        and tensors[0].dtype in (torch.float16, torch.bfloat16)
        and len(widths) == 1
        and max(widths) <= _WIDEST_HEAD
        and max(widths) % 8 == 0
    )
    return tensors if takes else None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, documents: Documents, scaling: float | None
) -> Tensor:
    """(B, L, H, E)."""
    batch, heads, length, _ = query.shape
    left = -1 if documents.window is None else documents.window - 1
    out = _varlen_attn(
        *(one.transpose(1, 2).flatten(0, 1) for one in (query, key, value)),
        documents.bounds,
        documents.bounds,
        documents.longest,
        documents.longest,
        scale=scaling,
        window_size=(left, 0),
        enable_gqa=heads != key.shape[1],
    )
    back: Tensor = out.unflatten(0, (batch, length))
    return back


def _each_alone(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> Tensor:
    """(B, L, H, E), each document through an attention of its own."""
    flat = [one.transpose(1, 2).flatten(0, 1) for one in (query, key, value)]
    of_each = zip(*(one.split(documents.lengths) for one in flat), strict=True)
    parts = []
    for length, own in zip(documents.lengths, of_each, strict=True):
        mask = None  # causality alone
        if documents.window is not None and length > documents.window:
            mask = seen(length, documents.window, query.device)[None, None]
        q, k, v = (one.transpose(0, 1).unsqueeze(0) for one in own)
        out, _ = sdpa_attention_forward(module, q, k, v, mask, scaling=scaling, **kwargs)
        parts.append(out[0])
    found: Tensor = torch.cat(parts).unflatten(0, (query.shape[0], query.shape[2]))
    return found


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
