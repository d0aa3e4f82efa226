"""From the tokens of samples to the rows of text of a batch: what is read, what is to be written.

The tokens of a sample are put together once (`mmdata.training_view.sequence`), whoever reads them.
What a model makes of them is its family's: a decoder reads and writes one row, an encoder-decoder
reads one and writes another.

Dimensions: B sequences, L positions of what is read, T of what is to be written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from flamingo.data.labels import caption_labels, interleaved_labels, num_targets, pad
from flamingo.data.packing import pack_layout
from flamingo.modules.loss import IGNORED
from mmdata.training_view.records import RecordRule
from mmdata.training_view.sequence import MediaTokenizer


@dataclass(frozen=True, slots=True)
class TextRows:
    """The text of a batch.

    Attributes:
        input_ids: (B, L) int64, padded on the right to the longest; a picture stands where its
            `<image>` is.
        attention_mask: (B, L) int64, 0 where padded.
        labels: (B, T) int64, -100 where nothing is to be learned.
        document_index: (B, L) int64: the sample of each position, from 0 in each sequence, -1
            where padded; None where a sequence is one sample.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    document_index: Tensor | None = None


class TextLayout(Protocol):
    """How a family lays out the tokens of samples.

    Attributes:
        tokenizer: that their ids were made with.
    """

    @property
    def tokenizer(self) -> MediaTokenizer: ...

    def rows(
        self,
        samples: Sequence[Sequence[int]],
        rule: RecordRule,
        per_sequence: Sequence[int] | None,
    ) -> TextRows:
        """Lay samples out.

        Args:
            samples: the ids of each.
            rule: of their stream; what is to be learned depends on it.
            per_sequence: how many samples go into each sequence; None: one, no packing.
        """
        ...

    def num_targets(self, labels: Tensor) -> int:
        """Tokens of the loss of labels (B, T)."""
        ...

    def shown(self, input_ids: Tensor, labels: Tensor) -> tuple[list[int], list[bool]]:
        """The ids of a sequence for a person, and which of them are to be learned.

        Args:
            input_ids: (L,) without padding.
            labels: (T,), padded.
        """
        ...


@dataclass(frozen=True, slots=True)
class DecoderText:
    """One row that is read and written; the model shifts the labels, so T is L.

    Attributes:
        tokenizer: that the ids were made with.
    """

    tokenizer: MediaTokenizer

    def rows(
        self,
        samples: Sequence[Sequence[int]],
        rule: RecordRule,
        per_sequence: Sequence[int] | None,
    ) -> TextRows:
        """Lay samples out, as `TextLayout` says."""
        pad_id, image_id = self.tokenizer.pad_id, self.tokenizer.image_id
        input_ids, mask = pad(samples, pad_id)
        if rule == "caption":
            labels = caption_labels(input_ids, mask, image_id=image_id)
        else:
            end = self.tokenizer.endofchunk_id
            labels = interleaved_labels(input_ids, mask, image_id=image_id, endofchunk_id=end)
        if per_sequence is None:
            return TextRows(input_ids, mask, labels)
        labels[:, 0] = IGNORED  # in a sequence it would be the target of the sample before
        layout = pack_layout(mask.sum(dim=1), per_sequence)
        return TextRows(
            layout.put(input_ids, pad_id),
            (layout.document_index >= 0).long(),
            layout.put(labels, IGNORED),
            layout.document_index,
        )

    def num_targets(self, labels: Tensor) -> int:
        """Labels that count: the first of a row is nobody's target."""
        return num_targets(labels)

    def shown(self, input_ids: Tensor, labels: Tensor) -> tuple[list[int], list[bool]]:
        """The row itself."""
        return input_ids.tolist(), (labels[: len(input_ids)] != IGNORED).tolist()
