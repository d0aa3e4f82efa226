"""Activation checkpointing of a block, by one of two policies.

- full: a block keeps its input; the backward pass runs it again. Least memory, a third more time.
- selective: a block keeps the outputs of its matrix products and of its attention; the rest (norms,
  activations, residuals) is computed again. That costs little time, and saves what those keep: a
  frozen LM saves less by it than one that trains, whose matrix products keep their inputs anyway.

Not kept are products of whole batches of matrices (`bmm`): that is attention where no kernel does
it at once, and its scores are the largest tensors of all.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from inspect import signature
from typing import Any, Literal

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Recompute = Literal["selective", "full"]

_ATEN = torch.ops.aten
KEPT = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
}
if find_spec("torch.nn.attention.varlen"):  # of packed documents; younger than the oldest torch
    import torch.nn.attention.varlen

    KEPT.add(torch.ops.torch_attn._varlen_attn.default)

#: What is kept passes the hooks that count saved tensors, as any other; torch 2.15 can be told.
_SEEN_BY_HOOKS: dict[str, Any] = {
    name: True
    for name in ("respect_saved_tensors_hooks",)
    if name in signature(checkpoint).parameters
}


def _policy(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    if operation in KEPT:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def run_block(
    policy: Recompute | None, block: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """The block's output.

    Args:
        policy: what is kept for the backward pass: `full` keeps the input alone. Without one, or
            without gradients, the block just runs.
        block: called with what follows.
    """
    if policy is None or not torch.is_grad_enabled():
        return block(*args, **kwargs)
    if policy == "full":
        return checkpoint(block, *args, use_reentrant=False, **kwargs)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    given = _SEEN_BY_HOOKS | kwargs
    return checkpoint(block, *args, use_reentrant=False, context_fn=contexts, **given)
