"""Perceiver resampler: any number of vision tokens of one image becomes 64 latents.

Every image is resampled on its own, so the batch is one ragged stack of images and no padding
image is ever computed. Parameter names are OpenFlamingo's (`layers.{i}.0` attention,
`layers.{i}.1` feed-forward), so its checkpoints load without a table of names; the price is
nested lists where named children would read better. There are no frame or media position
embeddings, because the released models have none.

Dimensions: N images, V vision tokens of an image, K latents, D vision width, H heads, E head size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo.modules.compute import InputTypeNorm
from flamingo.modules.recompute import Recompute, run_block


def feed_forward(width: int, expansion: int = 4) -> nn.Sequential:
    """LayerNorm and a bias-free two-layer MLP with exact GELU, as in the published model."""
    return nn.Sequential(
        InputTypeNorm(width),
        nn.Linear(width, width * expansion, bias=False),
        nn.GELU(),
        nn.Linear(width * expansion, width, bias=False),
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, S, H*E) -> (N, H, S, E)."""
    parts: Tensor = x.unflatten(-1, (heads, -1))
    return parts.transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(N, H, S, E) -> (N, S, H*E)."""
    return x.transpose(1, 2).flatten(-2)


class ResamplerAttention(nn.Module):
    """Latents attend to the vision tokens and to themselves."""

    def __init__(self, width: int, head_dim: int, heads: int) -> None:
        super().__init__()
        inner = head_dim * heads
        self.heads = heads
        self.norm_media = InputTypeNorm(width)
        self.norm_latents = InputTypeNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """tokens (N, V, D), latents (N, K, D) -> (N, K, D)."""
        latents = self.norm_latents(latents).to(tokens.dtype)
        query = split_heads(self.to_q(latents), self.heads)  # (N, H, K, E)
        context = torch.cat([self.norm_media(tokens), latents], dim=1)  # (N, V+K, D)
        key, value = (
            split_heads(part, self.heads) for part in self.to_kv(context).chunk(2, dim=-1)
        )
        found = F.scaled_dot_product_attention(query, key, value)
        latents = self.to_out(merge_heads(found))
        return latents


class ResamplerLayer(nn.ModuleList):
    """Attention (named 0) and feed-forward (named 1), each with its residual."""

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """tokens (N, V, D), latents (N, K, D) -> (N, K, D)."""
        attention, mlp = self
        latents = attention(tokens, latents) + latents
        latents = mlp(latents) + latents
        return latents


class PerceiverResampler(nn.Module):
    """Six layers of attention and feed-forward over learned latents."""

    def __init__(
        self,
        width: int,
        *,
        depth: int = 6,
        num_latents: int = 64,
        head_dim: int = 64,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, width))
        self.layers = nn.ModuleList(
            ResamplerLayer([ResamplerAttention(width, head_dim, heads), feed_forward(width)])
            for _ in range(depth)
        )
        self.norm = InputTypeNorm(width)
        self.recompute: Recompute | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Vision tokens (N, V, D) -> latents (N, K, D)."""
        latents: Tensor = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = run_block(self.recompute, layer, tokens, latents)
        latents = self.norm(latents)
        return latents
