"""The loop to compare with: OpenFlamingo's shape, plain and eager, on the same model and samples.

What it does as OpenFlamingo does: frozen weights in fp32 under bf16 autocast; attention of
resampler and cross-attention written out as two einsums around a softmax; documents padded to six
images, every one of which goes through the tower and the resampler; logits of all positions; one
forward and backward a stream; each stream's loss read to the host in each step; AdamW as torch has
it by default.

What it does better than OpenFlamingo, so that the comparison is of these alone: labels are made
beforehand, the two media-token rows train in place of a whole masked embedding, and images are
padded beforehand too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.train_gpu_batches import MAX_IMAGES, MULTIPLIERS
from flamingo.data.batch import Batch
from flamingo.data.decode import Normalization
from flamingo.models.flamingo.cross_attention import MaskedCrossAttention, MediaPass
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.resampler import ResamplerAttention, merge_heads, split_heads


@dataclass(frozen=True, slots=True)
class PlainBatch:
    """A stream's batch as OpenFlamingo's loader leaves it.

    Attributes:
        images: (N, 3, S, S) float32, padding images included.
        images_per_sample: their numbers.
        input_ids, attention_mask, labels: (B, L).
    """

    images: Tensor
    images_per_sample: list[int]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def plain_batch(batch: Batch, normalization: Normalization, num_slots: int | None) -> PlainBatch:
    """`num_slots`: images that each document is padded to; None: ragged."""
    assert batch.pixels is not None  # noqa: S101 - it is made of pictures
    images = normalization.applied(batch.pixels)
    counts = batch.images_per_sample.tolist()
    if num_slots is not None:
        padded = images.new_zeros(len(counts), num_slots, *images.shape[1:])
        for row, own in zip(padded, images.split(counts), strict=True):
            row[: len(own)] = own
        images, counts = padded.flatten(0, 1), [num_slots] * len(counts)
    return PlainBatch(images, counts, batch.input_ids, batch.attention_mask, batch.labels)


class PlainLoop:
    """Steps over the batches of a few steps, which repeat."""

    def __init__(
        self,
        model: Flamingo,
        steps: dict[str, list[Batch]],
        normalization: Normalization,
        device: torch.device,
        *,
        padded: bool,
        autocast: bool = True,
        learning_rate: float = 1e-4,
    ) -> None:
        """`padded`: documents to six images, as OpenFlamingo does."""
        self._model, self._device, self._autocast = model, device, autocast
        write_out_attention(model)
        slots = {"laion": 1, "mmc4": MAX_IMAGES} if padded else {}
        self._streams: dict[str, Iterator[PlainBatch]] = {
            name: cycle([plain_batch(one, normalization, slots.get(name)) for one in batches])
            for name, batches in steps.items()
        }
        self._trained = [one for one in model.parameters() if one.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=learning_rate)

    def step(self) -> dict[str, float]:
        """One optimizer step; returns each stream's mean loss."""
        losses = {}
        for name, batches in self._streams.items():
            loss = self._loss(next(batches))
            (loss * MULTIPLIERS[name]).backward()
            losses[name] = loss.item()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return losses

    def _loss(self, batch: PlainBatch) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast):
            out = self._model(
                input_ids=batch.input_ids.to(self._device),
                attention_mask=batch.attention_mask.to(self._device),
                labels=batch.labels.to(self._device),
                images=batch.images.to(self._device),
                images_per_sample=batch.images_per_sample,
                check=False,
            )
        loss: Tensor = out.loss
        return loss


def write_out_attention(model: Flamingo) -> None:
    """Replaces the model's own attention by einsums that keep all scores."""
    for module in model.modules():
        if isinstance(module, MaskedCrossAttention):
            module.forward = MethodType(_cross_attention, module)  # type: ignore[method-assign]
        elif isinstance(module, ResamplerAttention):
            module.forward = MethodType(_resampler_attention, module)  # type: ignore[method-assign]


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Of (B, H, L, E) and (B, H, S, E), the scores kept for the backward pass."""
    scores = torch.einsum("bhle,bhse->bhls", query * query.shape[-1] ** -0.5, key)
    if mask is not None:
        scores = scores.masked_fill(mask == -torch.inf, -torch.finfo(scores.dtype).max)
    scores = scores - scores.amax(dim=-1, keepdim=True).detach()
    return torch.einsum("bhls,bhse->bhle", scores.softmax(dim=-1).to(value.dtype), value)


def _cross_attention(module: Any, text: Tensor, media: MediaPass) -> Tensor:
    query = split_heads(module.to_q(module.norm(text)), module.heads)
    key, value = module.keys_values(media.latents)
    found = _attend(query, key, value, media.mask)
    result: Tensor = module.to_out(merge_heads(found) * media.has_image)
    return result


def _resampler_attention(module: Any, tokens: Tensor, latents: Tensor) -> Tensor:
    latents = module.norm_latents(latents)
    query = split_heads(module.to_q(latents), module.heads)
    context = torch.cat([module.norm_media(tokens), latents], dim=1)
    key, value = (split_heads(part, module.heads) for part in module.to_kv(context).chunk(2, -1))
    result: Tensor = module.to_out(merge_heads(_attend(query, key, value)))
    return result
