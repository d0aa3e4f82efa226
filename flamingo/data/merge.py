"""Batches of several streams as one, for a pass through the model that takes them together.

Sequences of the first stream come first, then those of the second, and so on; text is padded to the
longest of all.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flamingo.data.batch import Batch
from flamingo.modules.documents import document_bounds
from flamingo.modules.loss import IGNORED


def merge_batches(batches: Sequence[Batch]) -> Batch:
    """One batch of several, in order; of one it is that one.

    Args:
        batches: at least one; all bring pixels, or all features.

    Raises:
        ValueError: some bring pixels and others features.
    """
    if len(batches) == 1:
        return batches[0]
    if len({one.features is None for one in batches if one.num_images}) > 1:
        raise ValueError("batches: expected pixels in all or features in all, got both")
    indices = [one.document_index for one in batches]
    if any(one is not None for one in indices):
        indices = [_documents(one) for one in batches]
    before = 0
    image_index = []
    for one in batches:
        image_index.append(one.image_index + before)
        before += one.num_images
    index = _padded(indices, -1) if indices[0] is not None else None
    merged = Batch(
        pixels=_joined([one.pixels for one in batches]),
        features=_joined([one.features for one in batches]),
        mirrored=_mirrored(batches),
        image_index=torch.cat(image_index),
        images_per_sample=torch.cat([one.images_per_sample for one in batches]),
        input_ids=_padded([one.input_ids for one in batches], 0),
        attention_mask=_padded([one.attention_mask for one in batches], 0),
        labels=_padded([one.labels for one in batches], IGNORED),
        document_index=index,
        document_bounds=None if index is None else document_bounds(index),
        keys=tuple(key for one in batches for key in one.keys),
        sources=tuple(source for one in batches for source in one.sources),
        position=batches[-1].position,
        drops=sum((one.drops for one in batches), Counter()),
        num_targets=sum(one.num_targets for one in batches),
        stream_sizes=tuple(map(len, batches)),
    )
    return merged.pinned() if batches[0].input_ids.is_pinned() else merged


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [one for one in parts if one is not None]
    return torch.cat(there) if there else None


def _mirrored(batches: Sequence[Batch]) -> Tensor | None:
    if all(one.mirrored is None for one in batches):
        return None
    return torch.cat(
        [
            torch.zeros(one.num_images, dtype=torch.bool) if one.mirrored is None else one.mirrored
            for one in batches
        ]
    )


def _documents(batch: Batch) -> Tensor:
    """The document of each position; of an unpacked sequence there is one."""
    if batch.document_index is not None:
        return batch.document_index
    return batch.attention_mask - 1


def _padded(rows: Sequence[Tensor | None], fill: int) -> Tensor:
    """(B, L) each -> all rows, as long as the longest."""
    there = [one for one in rows if one is not None]
    length = max(one.shape[1] for one in there)
    return torch.cat([F.pad(one, (0, length - one.shape[1]), value=fill) for one in there])
