"""Gated cross-attention: a text position reads the latents of the one image before it.

A position attends to the image of the latest `<image>` tag at or before it, and to nothing when
there is none; then the attention's output is exactly zero, while the gated feed-forward still
runs. Both gates start at tanh(0) = 0, so a fresh block leaves its input unchanged.

The keys and values of all media of a sample lie in one sequence under a mask. That computes
scores that the mask discards (T times too many), which at the usual T <= 6 costs less than
gathering a separate key matrix for every text position.

Dimensions: B samples, L text positions, T media slots of a sample, K latents of an image,
C text width, D latent width, H heads, E head size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo.models.flamingo.resampler import feed_forward, merge_heads, split_heads
from flamingo.modules.compute import InputTypeNorm, add_gated, compute_type

KeysValues = tuple[Tensor, Tensor]


class MediaPass:
    """What the cross-attention blocks need to know in one forward pass of the LM."""

    def __init__(self, latents: Tensor, text_time: Tensor) -> None:
        """latents (B, T, K, D); text_time (B, L): how many `<image>` tags came so far.

        All that does not depend on the block is made here, once a pass: the latents in the type
        that they are multiplied in, and the mask as the numbers that are added to scores.
        """
        compute = compute_type(latents)
        self.latents = latents.flatten(1, 2).to(compute)  # (B, T*K, D)
        slots, num_latents = latents.shape[1], latents.shape[2]
        slot_time = torch.arange(1, slots + 1, device=latents.device)
        found = text_time.unsqueeze(-1) == slot_time  # (B, L, T)
        self.has_image = found.any(dim=-1, keepdim=True)  # (B, L, 1)
        self.mask: Tensor | None = None
        """(B, 1, L, T*K); None where there is one image at most, which then is all there is."""
        if slots > 1:
            # A position without an image attends to everything and is zeroed afterwards: a softmax
            # over nothing is NaN in some attention kernels.
            unseen = (~found & self.has_image).repeat_interleave(num_latents, dim=-1)
            zeros = torch.zeros_like(unseen, dtype=compute)
            self.mask = zeros.masked_fill_(unseen, -torch.inf).unsqueeze(1)
        self.known: dict[int, KeysValues] | None = None
        """Keys and values per block where they outlive the pass (generation), else None."""


class MaskedCrossAttention(nn.Module):
    """Attention from text to latents; latents are not normalised, text is."""

    def __init__(self, text_width: int, latent_width: int, head_dim: int, heads: int) -> None:
        super().__init__()
        inner = head_dim * heads
        self.heads = heads
        self.norm = InputTypeNorm(text_width)
        self.to_q = nn.Linear(text_width, inner, bias=False)
        self.to_kv = nn.Linear(latent_width, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, text_width, bias=False)

    def keys_values(self, latents: Tensor) -> KeysValues:
        """latents (B, T*K, D) -> two of (B, H, T*K, E)."""
        if not torch.is_autocast_enabled(latents.device.type):
            latents = latents.to(self.to_kv.weight.dtype)
        key, value = self.to_kv(latents).chunk(2, dim=-1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(self, text: Tensor, media: MediaPass) -> Tensor:
        """text (B, L, C) -> (B, L, C)."""
        query = split_heads(self.to_q(self.norm(text)), self.heads)  # (B, H, L, E)
        if media.known is None:
            key, value = self.keys_values(media.latents)
        else:
            if id(self) not in media.known:
                media.known[id(self)] = self.keys_values(media.latents)
            key, value = media.known[id(self)]
        mask = None if media.mask is None else media.mask.to(query.dtype)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.to_out(merge_heads(found) * media.has_image)
        return out


class GatedCrossAttentionBlock(nn.Module):
    """x + tanh(attn_gate) * attention, then x + tanh(ff_gate) * feed-forward."""

    def __init__(
        self, text_width: int, latent_width: int, *, head_dim: int = 64, heads: int = 8
    ) -> None:
        super().__init__()
        self.attn = MaskedCrossAttention(text_width, latent_width, head_dim, heads)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(text_width)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, media: MediaPass | None) -> Tensor:
        """hidden (B, L, C) -> (B, L, C) in the dtype that came in."""
        x: Tensor = hidden
        if not torch.is_autocast_enabled(hidden.device.type):
            x = hidden.to(self.attn_gate.dtype)
        if media is not None:
            x = add_gated(x, self.attn(x, media), self.attn_gate)
        x = add_gated(x, self.ff(x), self.ff_gate)
        return x.to(hidden.dtype)
