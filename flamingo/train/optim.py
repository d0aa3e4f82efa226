"""The optimizer, its groups and its state in a checkpoint; clipping.

Fused where there is one: AdamW's kernels do one pass over parameters and state, SGD's know no
parameters that are spread over ranks. torchao's 8-bit AdamW keeps its moments as codes with a
scale for each 256 values; parameters under 4096 values keep theirs in full. In a checkpoint they
are ordinary numbers, so that any number of ranks can read them, whose rows may be cut elsewhere; a
resume rounds them to codes once more, by less than a hundredth of their block's largest.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from flamingo.models.family import TrainableModel
from flamingo.modules.placement import local_part
from flamingo.options.run import RunOptions
from flamingo.train.offload import OffloadedOptimizer
from mmdata.dependencies import require


def expect_optimizer(options: RunOptions) -> None:
    """Refuse an optimizer that is not installed, before anything loads.

    Raises:
        MissingExtraError: it is not.
    """
    if options.optimizer == "adamw8bit":
        require("torchao", ("torchao",), "--optimizer adamw8bit")


def make_optimizer(model: TrainableModel, options: RunOptions) -> torch.optim.Optimizer:
    """Over what trains; which of it decays, the model says."""
    decaying: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decaying if model.decays(name, parameter) else plain).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": options.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if options.cpu_offload == "optimizer":
        return OffloadedOptimizer(groups, lambda inner: _optimizer(inner, options))
    return _optimizer(groups, options)


def _optimizer(groups: list[dict[str, Any]], options: RunOptions) -> torch.optim.Optimizer:
    rate = options.learning_rate
    parameters = [one for group in groups for one in group["params"]]
    on_gpu = all(one.is_cuda for one in parameters)
    if options.optimizer == "adamw8bit":
        from torchao.optim import AdamW8bit

        return cast(torch.optim.Optimizer, AdamW8bit(groups, lr=rate))
    if options.optimizer == "sgd":
        fused = on_gpu and not any(isinstance(one, DTensor) for one in parameters)
        return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, fused=fused or None)
    offloaded = options.cpu_offload is not None
    return torch.optim.AdamW(groups, lr=rate, fused=(on_gpu or offloaded) or None)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups of the optimizer one learning rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # a compiled step reads it from there
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def clip_gradients(
    parameters: Iterable[nn.Parameter], clip_norm: float, loss_scale: float = 1.0
) -> Tensor:
    """Cut the global gradient norm to `clip_norm` (0: leave it); returns the norm before, 0-d.

    Of sharded parameters as well: the norm is that of the whole gradient, the same on every rank.
    Gradients of a loss that was multiplied with `loss_scale` are divided by it first.
    """
    with_gradients = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in with_gradients if p.grad is not None]
    if loss_scale != 1.0 and gradients:
        torch._foreach_mul_(gradients, 1.0 / loss_scale)
    norm = get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if clip_norm > 0:
        clip_grads_with_norm_(with_gradients, clip_norm, norm)
    return norm


def queue_step(optimizer: torch.optim.Optimizer, found: Tensor) -> bool:
    """Queue what of a step there is to do before the host knows whether its numbers are finite.

    torch's fused AdamW finds out on the device of `found`, and leaves everything as it is if a
    number is not finite (SGD's could not: a first step left out would leave its momentum unset).
    Of an optimizer in host memory the gradients come down.

    Returns:
        whether all of the step is queued; if not, the host is to step or not.
    """
    groups = optimizer.param_groups
    if isinstance(optimizer, OffloadedOptimizer):
        optimizer.fetch()
    if not isinstance(optimizer, torch.optim.AdamW) or not all(one["fused"] for one in groups):
        return False
    if any(one.device != found.device for group in groups for one in group["params"]):
        return False
    stepping: Any = optimizer
    stepping.found_inf = found.isfinite().all().logical_not().to(torch.float32)
    try:
        optimizer.step()
    finally:
        del stepping.found_inf
    return True


def plain_state(value: Tensor) -> Tensor:
    """A state of the optimizer as ordinary numbers; codes are computed back."""
    local = local_part(value)
    dequantise = getattr(local, "dequantize", None)
    if type(local) in (Tensor, nn.Parameter, nn.Buffer) or dequantise is None:
        return value
    numbers: Tensor = dequantise()
    if not isinstance(value, DTensor):
        return numbers.to("cpu")  # four times the codes: not on the device
    return DTensor.from_local(
        numbers,
        value.device_mesh,
        value.placements,
        run_check=False,
        shape=value.shape,
        stride=value.stride(),
    )


def settle(optimizer: torch.optim.Optimizer) -> None:
    """After its state was loaded: where it has a form or a place of its own, bring it there."""
    if isinstance(optimizer, OffloadedOptimizer):
        optimizer.settle()
    new_buffer = getattr(optimizer, "_new_buffer", None)  # torchao's, which has no public name
    if new_buffer is None:
        return
    for parameter, state in optimizer.state.items():
        for name, is_signed in (("exp_avg", True), ("exp_avg_sq", False)):
            if name in state:
                state[name] = new_buffer(parameter, is_signed).copy_(state[name])
