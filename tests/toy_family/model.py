"""An encoder-decoder in miniature that sees pictures: it writes another row than it reads."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo.data.batch import Batch
from flamingo.data.decode import Normalization
from flamingo.data.order import Position
from flamingo.models.family import ModelPart, Prompt, Shape, ShardUnit, StepFlops, TrainableModel
from flamingo.modules.checkpoint_files import FAMILY_KEY
from flamingo.modules.loss import IGNORED
from flamingo.modules.placement import to_device
from mmdata.errors import UserError
from tests.toy_family.options import NAME

SIDE, PATCH = 32, 16


class ToyBlock(nn.Module):
    """Attention of one sequence to another (or itself), and a layer behind it."""

    def __init__(self, width: int, *, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_seen = nn.Linear(width, 2 * width) if is_causal else None
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, T, D), and of a decoder what it sees (B, L, D) -> (B, T, D).

        `mask` (B, L) is 0 where what is read is padded.
        """
        read = mask.bool().unsqueeze(1)
        x = x + F.scaled_dot_product_attention(
            self.to_q(x),
            self.to_k(x),
            self.to_v(x),
            None if self.is_causal else read,
            is_causal=self.is_causal,
        )
        if self.to_seen is not None:
            keys, values = self.to_seen(seen).chunk(2, dim=-1)
            x = x + F.scaled_dot_product_attention(x, keys, values, read)
        return x + self.out(torch.tanh(x))


class Toy(TrainableModel):
    """See `TrainableModel` for what each method is asked."""

    normalization = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    outside_forward = ("write",)

    def __init__(self, rows: int, width: int, *, media_id: int, pad_id: int, end_id: int) -> None:
        super().__init__()
        self.rows, self.width = rows, width
        self.media_id, self.pad_id, self.end_id = media_id, pad_id, end_id
        self.patches = nn.Linear(3 * PATCH * PATCH, width)
        self.embedding = nn.Embedding(rows, width)
        self.encoder = nn.ModuleList(ToyBlock(width, is_causal=False) for _ in range(2))
        self.decoder = nn.ModuleList(ToyBlock(width, is_causal=True) for _ in range(2))
        self.to_logits = nn.Linear(width, rows)

    @property
    def image_size(self) -> int:
        return SIDE

    @property
    def feature_width(self) -> int:
        raise UserError("a toy takes pictures, no features of them")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        images: Tensor | None,
        stream_sizes: tuple[int, ...] | None = None,
    ) -> Tensor:
        """The summed cross-entropy of labels (B, T); of several streams one sum each."""
        logits = self.decode(labels, self.encode(input_ids, attention_mask, images), attention_mask)
        sizes = list(stream_sizes or (len(labels),))
        losses = [
            F.cross_entropy(one.flatten(0, 1).float(), target.flatten(), reduction="sum")
            for one, target in zip(logits.split(sizes), labels.split(sizes), strict=True)
        ]
        return losses[0] if stream_sizes is None else torch.stack(losses)

    def encode(self, input_ids: Tensor, mask: Tensor, images: Tensor | None) -> Tensor:
        """(B, L) ids and (N, 3, S, S) pictures -> (B, L, D)."""
        if images is None:  # a blank one, so that all that trains is in the graph
            images = torch.zeros(1, 3, SIDE, SIDE, device=input_ids.device)
        cut = F.unfold(images, PATCH, stride=PATCH).transpose(1, 2)
        pictures = self.patches(cut).mean(dim=1)
        x = self.embedding(input_ids) + 0.0 * pictures.sum()
        x = x.masked_scatter((input_ids == self.media_id).unsqueeze(-1), pictures.to(x.dtype))
        for block in self.encoder:
            x = block(x, mask)
        return x

    def decode(self, labels: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, T, V) of labels, each from those before it."""
        before = F.pad(labels.masked_fill(labels == IGNORED, self.pad_id)[:, :-1], (1, 0))
        y = self.embedding(before)
        for block in self.decoder:
            y = block(y, mask, seen)
        logits: Tensor = self.to_logits(y)
        return logits

    def loss(self, batch: Batch, device: torch.device, through: nn.Module | None = None) -> Tensor:
        loss: Tensor = (through or self)(
            input_ids=to_device(batch.input_ids, device),
            attention_mask=to_device(batch.attention_mask, device),
            labels=to_device(batch.labels, device),
            images=self.pictures(batch, device),
            stream_sizes=batch.stream_sizes,
        )
        return loss

    def shard_units(self) -> Iterator[ShardUnit]:
        for block in (*self.encoder, *self.decoder, self):
            yield ShardUnit((block,))

    def parts(self) -> Iterator[ModelPart]:
        yield ModelPart("patches", self.patches, (self.patches,))
        for label, blocks in (("encoder", self.encoder), ("decoder", self.decoder)):
            for block in blocks:
                yield ModelPart(label, block, (block,))

    def head(self) -> nn.Module:
        return self.to_logits

    def kept_names(self) -> list[str]:
        return list(self.state_dict())

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.dim() > 1

    def step_flops(self) -> StepFlops | None:
        per_block = 6.0 * sum(math.prod(one.shape) for one in self.encoder[0].parameters())
        return StepFlops(
            tower=6.0 * math.prod(self.patches.weight.shape) * (SIDE // PATCH) ** 2,
            image=0.0,
            token=per_block * len(self.encoder),
            pair=12.0 * self.width * len(self.encoder),
            target=per_block * len(self.decoder) + 6.0 * math.prod(self.to_logits.weight.shape),
        )

    def largest_batch(self, limits: Shape) -> Batch:
        tags = min(limits.images, limits.tokens - 1)
        written = torch.ones(limits.sequences, limits.tokens - tags, dtype=torch.long)
        read = torch.full((limits.sequences, tags), self.media_id)
        number = limits.sequences * tags
        return Batch(
            pixels=torch.zeros(number, 3, SIDE, SIDE, dtype=torch.uint8),
            features=None,
            mirrored=None,
            image_index=torch.arange(number),
            images_per_sample=torch.full((limits.sequences,), tags),
            input_ids=read,
            attention_mask=torch.ones_like(read),
            labels=written,
            document_index=None,
            keys=("",) * limits.sequences,
            sources=("",) * limits.sequences,
            position=Position(),
            drops=Counter(),
            num_targets=written.numel(),
        )

    def identity(self) -> dict[str, Any]:
        return {FAMILY_KEY: NAME, "rows": self.rows, "width": self.width}

    def allow_packing(self, *, tries: bool = True) -> None:
        raise UserError("--pack: a toy reads a document at a time")

    def continue_prompts(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, num_beams: int = 1
    ) -> list[list[int]]:
        if num_beams != 1:
            raise UserError("--num-beams: a toy takes the likeliest token")
        return [self.write(prompt, max_new_tokens) for prompt in prompts]

    @torch.no_grad()
    def write(self, prompt: Prompt, number: int) -> list[int]:
        """The likeliest ids behind a prompt, to the end token or so many."""
        seen, mask = self._seen(prompt)
        labels = torch.full((1, 1), IGNORED, device=mask.device)
        written: list[int] = []
        while len(written) < number and self.end_id not in written:
            written.append(int(self.decode(labels, seen, mask)[0, -1].argmax()))
            labels = torch.tensor([[*written, IGNORED]], device=mask.device)
        return written

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        found = []
        for prompt, texts in zip(prompts, candidates, strict=True):
            seen, mask = self._seen(prompt)
            rows = [torch.tensor([text], device=mask.device) for text in texts]
            logits = [self.decode(row, seen, mask).log_softmax(-1) for row in rows]
            found.append(
                [
                    float(one.gather(-1, row.unsqueeze(-1)).sum())
                    for one, row in zip(logits, rows, strict=True)
                ]
            )
        return found

    def _seen(self, prompt: Prompt) -> tuple[Tensor, Tensor]:
        device = self.embedding.weight.device
        ids = torch.tensor([list(prompt.input_ids)], device=device)
        images = self.normalization.applied(prompt.images.to(device))
        mask = torch.ones_like(ids)
        return self.encode(ids, mask, images if len(images) else None), mask
