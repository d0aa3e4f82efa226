"""A batch: what a training step takes, and where the stream stands after it.

Images are one ragged stack of the real ones, in the order of their tags; nothing is padded but
text. Dimensions: B samples, L positions, N images, S pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flamingo.data.order import Position
from flamingo.data.prepare import Example
from flamingo.data.tokens import caption_labels, interleaved_labels, num_targets, pad
from mmdata.usage.records import RecordRule
from mmdata.usage.tokens import MediaTokenizer


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one stream, on the CPU.

    Attributes:
        images: (N, 3, S, S) uint8: those of sample 0 in the order of its `<image>` tags, then of
            sample 1, …
        images_per_sample: (B,) int64; they add up to N.
        input_ids: (B, L) int64, padded on the right to the longest.
        attention_mask: (B, L) int64, 0 where padded.
        labels: (B, L) int64, -100 where nothing is to be learned; the model shifts them.
        keys: of the samples.
        sources: the shard of each.
        position: of the stream after this batch.
        drops: what was dropped since the batch before, by `document:<reason>` and
            `image:<reason>`.
        num_targets: labels other than -100 after the shift, that is without position 0.
    """

    images: Tensor
    images_per_sample: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    position: Position
    drops: Counter[str]
    num_targets: int

    def __len__(self) -> int:
        """B."""
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Sample:
    """An example and where it comes from."""

    key: str
    source: str
    example: Example


def collate(
    samples: Sequence[Sample],
    tokenizer: MediaTokenizer,
    rule: RecordRule,
    *,
    position: Position,
    drops: Counter[str],
) -> Batch:
    """Put samples together."""
    input_ids, mask = pad([one.example.plan.input_ids for one in samples], tokenizer.pad_id)
    if rule == "caption":
        labels = caption_labels(input_ids, mask, image_id=tokenizer.image_id)
    else:
        labels = interleaved_labels(
            input_ids,
            mask,
            image_id=tokenizer.image_id,
            endofchunk_id=tokenizer.endofchunk_id,
        )
    return Batch(
        images=torch.stack([pixels for one in samples for pixels in one.example.pixels]),
        images_per_sample=torch.tensor([len(one.example.pixels) for one in samples]),
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        keys=tuple(one.key for one in samples),
        sources=tuple(one.source for one in samples),
        position=position,
        drops=drops,
        num_targets=num_targets(labels),
    )
