"""Copies of a checkpoint's tensors in host memory, to be written while training goes on.

The copies are made once and filled anew at each save, so that no save but the first asks for memory
(600 MB of fresh pages cost several times their copying). From a GPU they are pinned, and filled on
the stream that computes: the copying is queued behind the step that is saved and before the next
one, which costs the device that time once a save, and the host waits for nothing. The thread waits
until they are there. torch's own stager waits after each copy, or for the whole device.

Pinned memory comes in powers of two: on a GPU the copies take up to twice the bytes of the tensors.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from flamingo.modules.placement import local_part


def can_be_staged(tensors: Iterable[Tensor]) -> bool:
    """Whether a copy on the CPU can be made of each; not of quantised states, as torchao's."""
    plain = (Tensor, nn.Parameter, nn.Buffer)
    return all(type(local_part(one)) in plain for one in tensors)


class HostCopies:
    """Copies of tensors in host memory, by name, kept from one save to the next."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._filled: torch.cuda.Event | None = None

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of these tensors, which later steps leave alone; those of a GPU are on their way.

        What another call gave is overwritten. Whatever changes the tensors from now on must do so
        on the stream that is current here.

        Args:
            tensors: on any device, whole or spread over ranks, none of a class of its own
                (`can_be_staged`).

        Returns:
            By the same names, spread likewise: read them after `wait`.
        """
        self._kept = {name: one for name, one in self._kept.items() if name in tensors}
        self._filled = None
        for name, tensor in tensors.items():
            here = local_part(tensor).detach()
            self._room(name, here).copy_(here, non_blocking=True)
            if here.is_cuda and self._filled is None:
                self._filled = torch.cuda.Event()
        if self._filled is not None:
            self._filled.record()
        return {name: _spread_as(one, self._kept[name]) for name, one in tensors.items()}

    def wait(self) -> None:
        """Until the copies hold what they are of; from any thread."""
        if self._filled is not None:
            self._filled.synchronize()

    def _room(self, name: str, like: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            kept = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
            self._kept[name] = kept
        return kept


def _spread_as(tensor: Tensor, here: Tensor) -> Tensor:
    """This rank's part of a tensor that is spread as another; on whatever device the part is.

    `DTensor.from_local` would bring it to the device of the mesh.
    """
    if not isinstance(tensor, DTensor):
        return here
    return DTensor(here, tensor._spec, requires_grad=False)
