"""A block of open_clip's vision tower in fewer kernels, where it is frozen and in half precision.

open_clip's own block copies queries, keys and values to make them contiguous, adds the bias of
their projection apart, and takes three kernels for QuickGELU over its widest activations. Here the
attention reads views of one projection, and QuickGELU's factors ride on the matrix products around
it: x sigmoid(1.702 x) is silu(1.702 x) / 1.702. Numbers are rounded to half precision less often.
In float32, or where the tower trains, the block is open_clip's, to the bit.

Dimensions: N images, V tokens of an image, D width, H heads, E head size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

_SHARPNESS = 1.702
_HALF = (torch.bfloat16, torch.float16)


def use_tower_blocks(tower: nn.Module) -> None:
    """Make the plain blocks of a tower such as these; parameters and their names stay."""
    for block in tower.modules():
        if type(block) is ResidualAttentionBlock and _is_plain(block):
            block.__class__ = TowerBlock


def _is_plain(block: Any) -> bool:
    """Whether nothing but attention and MLP is in a block."""
    scales = (block.ls_1, block.ls_2)
    return (
        all(isinstance(one, nn.Identity) for one in scales)
        and not hasattr(block, "ln_1_kv")
        and block.attn.in_proj_weight is not None
        and block.attn.batch_first
    )


class TowerBlock(ResidualAttentionBlock):  # type: ignore[misc]  # open_clip has no types
    """See the module; made by `use_tower_blocks` of a block that is there already."""

    def forward(self, q_x: Tensor, *others: Any, **named: Any) -> Tensor:
        """(N, V, D) -> (N, V, D); what is masked or attends elsewhere is left to open_clip."""
        if (
            q_x.dtype in _HALF
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled(q_x.device.type)
            and all(one is None for one in (*others, *named.values()))
        ):
            x = q_x + self._attended(self.ln_1(q_x))
            return x + self._widened(self.ln_2(x))
        found: Tensor = super().forward(q_x, *others, **named)
        return found

    def _attended(self, x: Tensor) -> Tensor:
        attn: Any = self.attn
        projected = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)  # (N, V, 3 D)
        query, key, value = projected.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value)  # (N, H, V, E)
        out: Tensor = attn.out_proj(found.transpose(1, 2).flatten(2))
        return out

    def _widened(self, x: Tensor) -> Tensor:
        mlp: Any = self.mlp
        if type(mlp.gelu) is not QuickGELU:
            out: Tensor = mlp(x)
            return out
        up, down = mlp.c_fc, mlp.c_proj
        rows = x.flatten(0, 1)
        wide = torch.addmm(up.bias * _SHARPNESS, rows, up.weight.t(), alpha=_SHARPNESS)
        narrow = torch.addmm(
            down.bias, F.silu(wide, inplace=True), down.weight.t(), alpha=1 / _SHARPNESS
        )
        return narrow.view_as(x)
