"""Packing: several documents in one sequence, so that no position is spent on padding.

Next-fit: documents go into the open sequence in the order in which they come, and the first that
does not fit closes it and opens the next. Of the ways to pack this one fills least (documents of up
to half a sequence fill it to more than half at worst, to 85 to 95% as a rule), but it needs no
window of documents, keeps their order, and a position in the stream stays the position behind a
document: nothing is held back that a resume would have to find again.

Dimensions: n samples, P positions of the longest of them; B sequences, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


class NextFit(Generic[Item]):
    """The open sequence of one lane.

    Args:
        room: tokens of a sequence.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._open: list[Item] = []
        self._length = 0

    def add(self, item: Item, length: int) -> list[Item]:
        """Put a document of so many tokens in; returns the sequence that it closed, or nothing."""
        closed: list[Item] = []
        if self._open and self._length + length > self._room:
            closed = self.close()
        self._open.append(item)
        self._length += length
        return closed

    def close(self) -> list[Item]:
        """The open sequence, which then is a new one; empty when nothing is in it."""
        closed, self._open, self._length = self._open, [], 0
        return closed


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where the tokens of padded samples go.

    Attributes:
        source: flat positions in (n, P) of all real tokens, in order.
        target: their flat positions in (B, L).
        document_index: (B, L) int64: sample of each position, from 0 in each sequence; -1: none.
    """

    source: Tensor
    target: Tensor
    document_index: Tensor

    def put(self, padded: Tensor, fill: int) -> Tensor:
        """(n, P) int64 -> (B, L) int64, `fill` where no token goes."""
        packed = padded.new_full(self.document_index.shape, fill)
        packed.view(-1)[self.target] = padded.flatten()[self.source]
        return packed


def pack_layout(lengths: Tensor, per_sequence: Sequence[int]) -> PackedLayout:
    """The layout of samples one behind the other.

    Args:
        lengths: (n,) tokens of each sample.
        per_sequence: how many of them each sequence takes, in order; they add up to n.
    """
    counts = torch.tensor(list(per_sequence))
    sequence = torch.repeat_interleave(torch.arange(len(counts)), counts)  # of each sample
    totals = torch.zeros(len(counts), dtype=torch.long).index_add_(0, sequence, lengths)
    width = int(totals.max())
    before = lengths.cumsum(0) - lengths  # tokens of all samples before each
    before_sequence = totals.cumsum(0) - totals
    start = sequence * width + before - before_sequence[sequence]
    sample = torch.repeat_interleave(torch.arange(len(lengths)), lengths)  # of each token
    offset = torch.arange(len(sample)) - before[sample]
    target = start[sample] + offset
    first_of_sequence = counts.cumsum(0) - counts
    document_index = torch.full((len(counts), width), -1)
    document_index.view(-1)[target] = sample - first_of_sequence[sequence[sample]]
    return PackedLayout(sample * int(lengths.max()) + offset, target, document_index)
