"""A batch: what a training step takes, and where the stream stands after it.

Images are one ragged stack of the real ones, in the order of their tags; nothing is padded but
text. A row of tokens, a sequence, holds one sample or, packed, several: then `document_index` says
which position is whose, and attention, positions and images stay inside each.

Dimensions: B sequences, L positions, N images, S pixels, V patch tokens of an image, D their width,
M `<image>` tags.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flamingo.data.labels import caption_labels, interleaved_labels, num_targets, pad
from flamingo.data.order import Position
from flamingo.data.packing import pack_layout
from flamingo.data.prepare import Example
from flamingo.modules.loss import IGNORED
from mmdata.training_view.records import RecordRule
from mmdata.training_view.sequence import MediaTokenizer


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of one stream, on the CPU.

    Attributes:
        pixels: (N, 3, S, S) uint8: the images of sequence 0 in the order of its `<image>` tags,
            then of sequence 1, …; None where features are precomputed.
        features: (N, V, D) bf16: their patch tokens instead; else None.
        mirrored: (N,) bool: images to mirror left and right; None: none.
        image_index: (M,) int64: which of the N images is that of each tag of `input_ids`, row by
            row.
        images_per_sample: (B,) int64: images of each sequence; they add up to N.
        input_ids: (B, L) int64, padded on the right to the longest.
        attention_mask: (B, L) int64, 0 where padded.
        labels: (B, L) int64, -100 where nothing is to be learned; the model shifts them.
        document_index: (B, L) int64: the sample of each position, from 0 in each sequence, -1
            where padded; None where a sequence is one sample.
        keys: of the samples.
        sources: the shard of each.
        position: of the stream after this batch.
        drops: what was dropped since the batch before, by `document:<reason>` and
            `image:<reason>`.
        num_targets: labels other than -100 after the shift, that is without position 0.
    """

    pixels: Tensor | None
    features: Tensor | None
    mirrored: Tensor | None
    image_index: Tensor
    images_per_sample: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    document_index: Tensor | None
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    position: Position
    drops: Counter[str]
    num_targets: int

    def __len__(self) -> int:
        """B."""
        return len(self.input_ids)

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.images_per_sample.sum())


@dataclass(frozen=True, slots=True)
class SourcedExample:
    """An example and where it comes from."""

    key: str
    source: str
    example: Example


def collate(
    samples: Sequence[SourcedExample],
    tokenizer: MediaTokenizer,
    rule: RecordRule,
    *,
    position: Position,
    drops: Counter[str],
    per_sequence: Sequence[int] | None = None,
) -> Batch:
    """Put samples together.

    Args:
        samples: in order.
        tokenizer: that their ids were made with.
        rule: of the stream; labels depend on it.
        position: of the stream after them.
        drops: since the batch before.
        per_sequence: how many samples are packed into each sequence; None: no packing.
    """
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
    counts = torch.tensor([len(one.example.media) for one in samples])
    document_index = None
    if per_sequence is not None:
        labels[:, 0] = IGNORED  # in a sequence it would be the target of the sample before
        layout = pack_layout(mask.sum(dim=1), per_sequence)
        input_ids = layout.put(input_ids, tokenizer.pad_id)
        labels = layout.put(labels, IGNORED)
        document_index = layout.document_index
        mask = (document_index >= 0).long()
        counts = torch.stack([part.sum() for part in counts.split(list(per_sequence))])
    media = torch.stack([one for sample in samples for one in sample.example.media])
    mirrored = torch.tensor([one for sample in samples for one in sample.example.mirrored])
    is_pixels = media.dtype == torch.uint8
    return Batch(
        pixels=media if is_pixels else None,
        features=None if is_pixels else media,
        mirrored=mirrored if mirrored.any() else None,
        image_index=torch.arange(len(media)),
        images_per_sample=counts,
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        document_index=document_index,
        keys=tuple(one.key for one in samples),
        sources=tuple(one.source for one in samples),
        position=position,
        drops=drops,
        num_targets=num_targets(labels),
    )


def blank_batch(feature_width: int | None = None) -> Batch:
    """A batch without targets and images, for a pass that a rank runs because others do.

    Args:
        feature_width: D of the features that the others have in place of pictures; they do not run
            the vision tower, so this rank must not either.
    """
    ids = torch.zeros(1, 2, dtype=torch.long)
    return Batch(
        pixels=None,
        features=None if feature_width is None else torch.zeros(0, 1, feature_width),
        mirrored=None,
        image_index=torch.zeros(0, dtype=torch.long),
        images_per_sample=torch.zeros(1, dtype=torch.long),
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=torch.full_like(ids, IGNORED),
        document_index=None,
        keys=(),
        sources=(),
        position=Position(),
        drops=Counter(),
        num_targets=0,
    )
