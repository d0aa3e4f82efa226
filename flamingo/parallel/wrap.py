"""A model on many ranks: which module is called, and when gradients travel.

- ddp: each rank has all of the model; gradients are averaged in the backward pass of the step's
  last micro-batch, the others keep them (`no_sync`): one of the stream with most text in a pass, so
  that most of their way is under it. Every trainable parameter is in the graph of every pass, so
  none has to be looked for.
- fsdp: gradients are averaged and sharded after every micro-batch: whole ones of all micro-batches
  would need the memory that sharding saves.
- hsdp: likewise within a copy; the copies are averaged at the last micro-batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel

from flamingo.models.family import Rows, TrainableModel
from flamingo.modules.quantised import quantised_names
from flamingo.parallel.shard import shard_model
from flamingo.parallel.world import World

#: No buffer of the model changes in training, so none has to travel. torch 2.15 has a new name.
_SAME_BUFFERS: dict[str, Any] = {
    name: False
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
}
if len(_SAME_BUFFERS) == 2:
    del _SAME_BUFFERS["broadcast_buffers"]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A model on the ranks of a run.

    Attributes:
        model: the model itself, which is measured and saved.
        runner: what a training pass calls.
    """

    model: TrainableModel
    runner: nn.Module

    @contextmanager
    def training_pass(self, *, is_last: bool) -> Iterator[None]:
        """Around the forward and backward of a micro-batch; `is_last` of the optimizer step."""
        if isinstance(self.runner, DistributedDataParallel) and not is_last:
            with self.runner.no_sync():
                yield
            return
        if isinstance(self.runner, FSDPModule):
            self.runner.set_requires_all_reduce(is_last)  # without copies it does nothing
        yield


def wrap_model(model: TrainableModel, world: World) -> Wrapped:
    """Put a model on the ranks, if it was not built there (`rows_of`); every rank has to call it.

    Its values are there already.
    """
    runner: nn.Module = model
    if world.parallel == "ddp":
        # It sends every parameter from rank 0 once; those in NF4 cannot be sent, nor need to be.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            model, quantised_names(model)
        )
        runner = DistributedDataParallel(model, gradient_as_bucket_view=True, **_SAME_BUFFERS)
    elif world.mesh is not None and not isinstance(model, FSDPModule):
        shard_model(model, world.mesh)
    return Wrapped(model, runner)


def rows_of(
    world: World, *, mp_policy: MixedPrecisionPolicy | None = None, in_host_memory: bool = False
) -> Rows:
    """How a rank builds its rows of a model that is sharded over the mesh of a world.

    Args:
        world: with a mesh.
        mp_policy: in which types parameters are gathered and reduced; see `shard_model`.
        in_host_memory: whether parameters stay there.

    Raises:
        ValueError: there is no mesh.
    """
    mesh = world.mesh
    if mesh is None:
        raise ValueError(f"world: expected one with a mesh, got --parallel {world.parallel}")
    return Rows(
        shard=partial(shard_model, mesh=mesh, mp_policy=mp_policy, in_host_memory=in_host_memory),
        device=world.device,
        place=torch.device("cpu") if in_host_memory else world.device,
        num_parts=mesh.size(mesh.ndim - 1),
    )
