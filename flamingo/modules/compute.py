"""In which type a part of a model computes while autocast is on.

Autocast decides operation by operation: matrix products in half precision, norms and powers in
float32, with a cast of all activations before and behind. That is for parts whose weights are
float32. A frozen part that is stored in bfloat16 has no such weights, so it computes as it would
without autocast: in bfloat16 throughout, while norms and softmax still add up in float32 inside of
their kernels. What changes is where a number is rounded to bfloat16, not to how many digits.

float16 is left to autocast: an activation's cube leaves its range.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def compute_type(x: Tensor) -> torch.dtype:
    """The type in which a matrix product of x would be computed here."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Around operations that compute in the types of what they are given."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def in_stored_type(part: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """Around a part that may be frozen: without autocast where all of it is bfloat16 and frozen.

    With adapters in it, which train in float32, it stays under autocast as a whole.
    """
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    is_plain = all(
        one.dtype is torch.bfloat16 and not one.requires_grad for one in part.parameters()
    )
    return torch.autocast(device.type, enabled=not is_plain)


class InputTypeNorm(nn.LayerNorm):
    """LayerNorm that gives back the type that it is given, under autocast too.

    Mean and variance are float32 inside of the kernel; only what comes out is rounded, which the
    matrix product behind it would do anyway.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with without_autocast(x.device):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


def add_gated(x: Tensor, found: Tensor, gate: Tensor) -> Tensor:
    """x + tanh(gate) * found, in the type of x.

    Args:
        x: (…, D).
        found: (…, D).
        gate: (1,).
    """
    factor = gate.tanh()
    if x.dtype == factor.dtype:
        # Rounded twice, as OpenFlamingo does; in one kernel a CPU rounds once.
        return found * factor + x
    return torch.addcmul(x, found.to(x.dtype), factor.to(x.dtype))
