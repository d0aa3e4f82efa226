"""The optimizer's groups, clipping, and whether a step may be taken."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from flamingo.train.config import Train

#: Parameters with this in their name decay, as in OpenFlamingo; resampler and token rows do not.
DECAYING = "gated_cross_attn"


def make_optimizer(model: nn.Module, options: Train) -> torch.optim.AdamW:
    """AdamW over what trains: cross-attention decays, resampler and media-token rows do not."""
    decaying: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decaying if DECAYING in name else plain).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": options.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], clip_norm: float) -> Tensor:
    """Cut the global gradient norm to `clip_norm` (0: leave it); returns the norm before, 0-d.

    Of sharded parameters as well: the norm is that of the whole gradient, the same on every rank.
    """
    with_gradients = [p for p in parameters if p.grad is not None]
    norm = get_total_norm([p.grad for p in with_gradients if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if clip_norm > 0:
        clip_grads_with_norm_(with_gradients, clip_norm, norm)
    return norm
