"""Blocks of the tower: open_clip's own in float32, fewer kernels in bfloat16 and no less exact."""

from collections import Counter
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import LayerScale, ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flamingo.modules.tower_block import TowerBlock, use_tower_blocks
from flamingo.modules.vision import encode_images, prepare_tower
from tests.flamingo.modules.test_vision import SIZE, TEXT

LAYERS = 3


def make_tower(*, quick_gelu: bool = True) -> nn.Module:
    """With open_clip's blocks."""
    torch.manual_seed(0)
    vision = SIZE | {"layers": LAYERS, "width": 64}
    tower: nn.Module = open_clip.model.CLIP(
        embed_dim=16, vision_cfg=vision, text_cfg=TEXT, quick_gelu=quick_gelu
    ).visual
    for name, parameter in tower.named_parameters():
        if name.endswith("bias"):  # all 0 otherwise
            nn.init.normal_(parameter, std=0.5)
    return tower


def tokens_of(tower: nn.Module, images: Tensor, *, ours: bool) -> Tensor:
    prepare_tower(tower, "pre_norm")
    for block in tower.modules():
        if isinstance(block, TowerBlock) and not ours:
            block.__class__ = ResidualAttentionBlock
    return encode_images(tower, images.to(next(tower.parameters()).dtype), chunk=8).double()


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_tokens_in_bfloat16_are_as_exact_as_open_clips_and_in_float32_they_are_its_own(
    quick_gelu: bool,
) -> None:
    images = torch.randn(4, 3, 32, 32).bfloat16()

    def tokens(dtype: torch.dtype, *, ours: bool) -> Tensor:
        # Weights that bfloat16 has, so that only what is computed differs.
        tower = make_tower(quick_gelu=quick_gelu).bfloat16().to(dtype)
        return tokens_of(tower, images, ours=ours)

    assert torch.equal(tokens(torch.float32, ours=True), tokens(torch.float32, ours=False))
    exact = tokens(torch.float64, ours=False)
    off = [(tokens(torch.bfloat16, ours=ours) - exact).norm() for ours in (True, False)]
    assert 0 < off[0] <= 1.1 * off[1]


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it so
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if not operation.is_view:
            self.names[operation.__name__.partition(".")[0]] += 1
        return operation(*args, **(kwargs or {}))


def test_a_block_takes_eleven_kernels_in_bfloat16() -> None:
    tower = prepare_tower(make_tower().bfloat16(), "pre_norm")
    block: Any = tower.transformer.resblocks[0]  # type: ignore[union-attr,index]
    x = torch.randn(2, 5, 64, dtype=torch.bfloat16)
    with torch.no_grad(), _Operations() as seen:
        block(x)
    del seen.names["_unsafe_view"]  # which only looks at memory anew
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    expected = {"native_layer_norm": 2, "addmm": 4, attention: 1, "silu_": 1, "add": 2, "mul": 1}
    assert seen.names == expected


def test_other_blocks_and_a_tower_that_trains_stay_open_clips() -> None:
    tower: Any = make_tower()
    tower.transformer.resblocks[1].ls_1 = LayerScale(64)
    names = list(tower.state_dict())
    use_tower_blocks(tower)
    kinds = [type(block) for block in tower.transformer.resblocks]
    assert kinds == [TowerBlock, ResidualAttentionBlock, TowerBlock]
    assert list(tower.state_dict()) == names
    block, x = tower.transformer.resblocks[0].bfloat16(), torch.randn(2, 5, 64).bfloat16()
    assert block(x).grad_fn is not None
    with torch.no_grad(), _Operations() as seen:
        block(x, attn_mask=torch.zeros(5, 5))
    assert seen.names["sigmoid"] == 1
