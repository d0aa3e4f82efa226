"""Labels of token sequences and padding: what `mmdata.training_view.sequence` leaves to torch.

Labels: in documents a position trains when, before it, the last `<image>` comes after the last
`<|endofchunk|>`: the text of a picture and the `<|endofchunk|>` that closes it, not the text
before the first picture and not the end token. In captions everything trains. Never a tag or
padding. The model shifts the labels, so the one at position 0 counts for nothing.

Dimensions: B samples, L positions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flamingo.modules.loss import IGNORED


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and their mask, both (B, L) int64, L the longest."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), pad_id, dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    lengths = np.array([len(sequence) for sequence in sequences])
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def interleaved_labels(
    input_ids: Tensor, attention_mask: Tensor, *, image_id: int, endofchunk_id: int
) -> Tensor:
    """(B, L) int64: the ids that train, -100 elsewhere. See the module for the rule."""
    is_image = input_ids == image_id
    last_image = _last_before(is_image)
    trains = (last_image > _last_before(input_ids == endofchunk_id)) & ~is_image
    return torch.where(trains & attention_mask.bool(), input_ids, IGNORED)


def caption_labels(input_ids: Tensor, attention_mask: Tensor, *, image_id: int) -> Tensor:
    """(B, L) int64: the ids, -100 for tags and padding."""
    trains = (input_ids != image_id) & attention_mask.bool()
    return torch.where(trains, input_ids, IGNORED)


def num_targets(labels: Tensor) -> int:
    """Labels that count: after the model's shift, position 0 is nobody's target."""
    return int((labels[:, 1:] != IGNORED).sum())


def _last_before(marks: Tensor) -> Tensor:
    """(B, L) bool -> the position of the last mark strictly before each position; -1 if none."""
    positions = torch.arange(marks.shape[1]).expand_as(marks)
    last = torch.where(marks, positions, -1).cummax(dim=1).values
    return torch.nn.functional.pad(last[:, :-1], (1, 0), value=-1)
