"""Where the documents of packed sequences lie, as attention is told.

Dimensions: B sequences, L positions, n documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Documents:
    """Packed documents, where an LM expects a mask. Padding counts as documents.

    Attributes:
        index: (B, L) the document of each position, equal along a document.
        bounds: (n + 1,) int32: where each begins in the (B*L,) positions of all sequences, and the
            end of the last.
        lengths: positions of each.
        longest: positions that none has more of: a power of two, so that few kernels are chosen.
        window: positions that each sees, itself included; None: all before it.
    """

    index: Tensor
    bounds: Tensor
    lengths: tuple[int, ...]
    longest: int
    window: int | None = None

    @classmethod
    def of(
        cls, index: Tensor, bounds: Tensor | None = None, lengths: Sequence[int] | None = None
    ) -> "Documents":
        """The documents of an index; without the rest of it, it is read from the device."""
        if bounds is None or lengths is None:
            bounds = document_bounds(index)
            lengths = bounds.diff().tolist()
        longest = 1 << (max(lengths) - 1).bit_length()
        return cls(index, bounds.to(index.device), tuple(lengths), longest)

    @cached_property
    def mask(self) -> Tensor:
        """(B, 1, L, L) bool: what each position sees."""
        same = self.index.unsqueeze(2) == self.index.unsqueeze(1)
        return (same & seen(self.index.shape[1], self.window, self.index.device)).unsqueeze(1)


def seen(length: int, window: int | None, device: torch.device) -> Tensor:
    """(L, L) bool: what each position of a text sees."""
    position = torch.arange(length, device=device)
    distance = position.unsqueeze(1) - position
    return (distance >= 0) & (distance < (length if window is None else window))


def document_bounds(index: Tensor) -> Tensor:
    """(B, L) documents -> (n + 1,) int32, where each begins in (B*L,) and where the last ends.

    Meant for the CPU, where batches are made: on a GPU it waits for the device.
    """
    begins = torch.ones_like(index, dtype=torch.bool)
    begins[:, 1:] = index[:, 1:] != index[:, :-1]
    starts = begins.flatten().nonzero().squeeze(1)
    return torch.cat([starts, starts.new_tensor([index.numel()])]).int()
