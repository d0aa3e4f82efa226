"""The text of a toy: all up to the last picture is read, what comes behind it is written."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flamingo.data.labels import pad
from flamingo.data.text_layout import TextRows
from flamingo.modules.loss import IGNORED
from mmdata.errors import UserError
from mmdata.training_view.records import RecordRule
from mmdata.training_view.sequence import MediaTokenizer


class ToyText:
    """Two rows a sample: see `TextLayout` for what each method is asked."""

    def __init__(self, tokenizer: MediaTokenizer) -> None:
        self.tokenizer = tokenizer

    def rows(
        self,
        samples: Sequence[Sequence[int]],
        rule: RecordRule,
        per_sequence: Sequence[int] | None,
    ) -> TextRows:
        if per_sequence is not None:
            raise UserError("--pack: a toy reads a document at a time")
        ends = [_end_of_last(ids, self.tokenizer.image_id) for ids in samples]
        read = [ids[:end] for ids, end in zip(samples, ends, strict=True)]
        written = [ids[end:] for ids, end in zip(samples, ends, strict=True)]
        input_ids, attention_mask = pad(read, self.tokenizer.pad_id)
        labels, is_written = pad(written, self.tokenizer.pad_id)
        return TextRows(input_ids, attention_mask, torch.where(is_written > 0, labels, IGNORED))

    def num_targets(self, labels: Tensor) -> int:
        return int((labels != IGNORED).sum())

    def shown(self, input_ids: Tensor, labels: Tensor) -> tuple[list[int], list[bool]]:
        written = labels[labels != IGNORED].tolist()
        return input_ids.tolist() + written, [False] * len(input_ids) + [True] * len(written)


def _end_of_last(ids: Sequence[int], image_id: int) -> int:
    return max(place + 1 for place, token in enumerate(ids) if token == image_id)
