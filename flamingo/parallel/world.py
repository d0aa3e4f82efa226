"""The ranks of a run, as every other module sees them.

A `World` says who this process is and carries the few things that ranks tell each other outside
the model: sums of counts, small objects, a barrier. A world of one needs no process group and
answers by itself, so that no caller asks how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

Parallel = Literal["none", "ddp", "fsdp", "hsdp"]


@dataclass(frozen=True, slots=True)
class World:
    """This process among the ranks of a run.

    Attributes:
        rank: 0 to size - 1.
        size: ranks.
        local_rank: among the ranks of this host.
        local_size: ranks of this host.
        parallel: how the model is spread over them.
        device: of this rank.
        mesh: of the ranks, one-dimensional, or for hsdp (copies, shards); None for one rank.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    parallel: Parallel = "none"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what one rank has to write."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether parameters are DTensors."""
        return self.parallel in ("fsdp", "hsdp")

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each value, in float64. Every rank has to ask."""
        if self.size == 1:
            return list(values)
        # NCCL reduces on the GPU only; float64 counts tokens exactly up to 2 ** 53.
        summed = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def gather(self, value: Any) -> list[Any]:
        """A small object of each rank, in order of ranks. Every rank has to ask."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()
