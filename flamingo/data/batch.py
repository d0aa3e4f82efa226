"""A batch: what a training step takes, and where the stream stands after it.

Images are one ragged stack of the real ones, in the order of their tags; nothing is padded but
text. A row of tokens, a sequence, holds one sample or, packed, several: then `document_index` says
which position is whose, and attention, positions and images stay inside each.

Dimensions: B sequences, L positions, T of what is to be written, N images, S pixels, V patch tokens
of an image, D their width, M `<image>` tags.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from flamingo.data.order import Position
from flamingo.data.prepare import Example
from flamingo.data.text_layout import TextLayout
from flamingo.modules.documents import document_bounds
from flamingo.modules.loss import IGNORED
from mmdata.training_view.records import RecordRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Sequences of one stream, or of several in one pass, on the CPU.

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
        labels: (B, T) int64, -100 where nothing is to be learned. Of a decoder, which reads and
            writes one row, T is L and the model shifts them; an encoder-decoder writes another.
        document_index: (B, L) int64: the sample of each position, from 0 in each sequence, -1
            where padded; None where a sequence is one sample.
        document_bounds: (n + 1,) int32: where in the (B*L,) positions each of the n documents
            begins, padding counted as documents, and where the last ends; None without packing.
        keys: of the samples.
        sources: the shard of each.
        position: of the stream after this batch.
        drops: what was dropped since the batch before, by `document:<reason>` and
            `image:<reason>`.
        num_targets: tokens of the loss.
        stream_sizes: sequences of each stream, where those of several lie one behind the other
            (`merge_batches`); None: all are of one.
    """

    pixels: Tensor | None = None
    features: Tensor | None = None
    mirrored: Tensor | None = None
    image_index: Tensor
    images_per_sample: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    document_index: Tensor | None = None
    document_bounds: Tensor | None = None
    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    position: Position = field(default_factory=Position)
    drops: Counter[str] = field(default_factory=Counter)
    num_targets: int
    stream_sizes: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """B."""
        return len(self.input_ids)

    def pinned(self) -> "Batch":
        """This batch in memory that a GPU copies from while the host goes on."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        tensors: dict[str, Any] = {
            name: one.pin_memory() for name, one in held.items() if isinstance(one, Tensor)
        }
        return replace(self, **tensors)

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
    layout: TextLayout,
    rule: RecordRule,
    *,
    position: Position,
    drops: Counter[str],
    per_sequence: Sequence[int] | None = None,
    is_pinned: bool = False,
) -> Batch:
    """Put samples together.

    Args:
        samples: in order.
        layout: of their text.
        rule: of the stream; labels depend on it.
        position: of the stream after them.
        drops: since the batch before.
        per_sequence: how many samples are packed into each sequence; None: no packing.
        is_pinned: whether a GPU will take the batch.
    """
    text = layout.rows([one.example.plan.input_ids for one in samples], rule, per_sequence)
    counts = torch.tensor([len(one.example.media) for one in samples])
    if per_sequence is not None:
        counts = torch.stack([part.sum() for part in counts.split(list(per_sequence))])
    media = torch.stack([one for sample in samples for one in sample.example.media])
    mirrored = torch.tensor([one for sample in samples for one in sample.example.mirrored])
    is_pixels = media.dtype == torch.uint8
    index = text.document_index
    batch = Batch(
        pixels=media if is_pixels else None,
        features=None if is_pixels else media,
        mirrored=mirrored if mirrored.any() else None,
        image_index=torch.arange(len(media)),
        images_per_sample=counts,
        input_ids=text.input_ids,
        attention_mask=text.attention_mask,
        labels=text.labels,
        document_index=text.document_index,
        document_bounds=None if index is None else document_bounds(index),
        keys=tuple(one.key for one in samples),
        sources=tuple(one.source for one in samples),
        position=position,
        drops=drops,
        num_targets=layout.num_targets(text.labels),
    )
    return batch.pinned() if is_pinned else batch


def blank_batch(feature_width: int | None = None) -> Batch:
    """A batch without targets and images, for a pass that a rank runs because others do.

    Args:
        feature_width: D of the features that the others have in place of pictures; they do not run
            the vision tower, so this rank must not either.
    """
    ids = torch.zeros(1, 2, dtype=torch.long)
    return Batch(
        features=None if feature_width is None else torch.zeros(0, 1, feature_width),
        image_index=torch.zeros(0, dtype=torch.long),
        images_per_sample=torch.zeros(1, dtype=torch.long),
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=torch.full_like(ids, IGNORED),
        num_targets=0,
    )
