"""What a run asks of a driver below torch's own calls, done on the host.

NCCL and its streams, memory that FSDP frees and allocates by its address, and the files of a
checkpoint, which torch writes out of memory that the pretended GPU has not.
"""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.distributed.fsdp._fully_shard._fsdp_collectives as fsdp_collectives
import torch.distributed.fsdp._fully_shard._fsdp_init as fsdp_init
import torch.distributed.fsdp._fully_shard._fsdp_param as fsdp_param
import torch.distributed.fsdp._fully_shard._fully_shard as fsdp
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from flamingo.parallel import world as worlds
from flamingo.train.checkpoint.checkpoint import Checkpointer


def _open_group(
    ranks: worlds.Ranks, _device: torch.device, timeout_seconds: float, _init_method: str
) -> None:
    """gloo, for NCCL: a world of one, whose store is its own memory."""
    dist.init_process_group(
        "gloo",
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=timedelta(seconds=timeout_seconds),
        store=HashStore(),
    )


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


_WRITE = Checkpointer._write_tensors


def _write_tensors(self: Checkpointer, folder: str, tensors: dict[str, Tensor]) -> None:
    """The files of a checkpoint, from the tensors inside."""
    inside = {name: getattr(one.detach(), "host", one) for name, one in tensors.items()}
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        _WRITE(self, folder, inside)


@contextlib.contextmanager
def on_the_host(*, saves: bool = True) -> Iterator[None]:
    """While this lasts, all of that is done on the host.

    Args:
        saves: whether checkpoints are written; they cannot be of a model that is spread over ranks.
    """
    with contextlib.ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            if hasattr(owner, name):  # versions of torch differ in these
                stack.enter_context(mock.patch.object(owner, name, value))

        put(worlds, "_open_group", _open_group)
        put(fsdp, "_move_states_to_device", _nothing)
        put(fsdp_init, "_move_states_to_device", _nothing)
        put(fsdp_collectives, "record_grad_output_stream", _nothing)
        put(fsdp_param, "free_storage", _nothing)
        put(fsdp_param, "alloc_storage", _nothing)
        put(Checkpointer, "_write_tensors", _write_tensors)
        if not saves:
            put(Checkpointer, "save", _nothing)
        try:
            yield
        finally:
            if dist.is_initialized():  # a run that failed leaves NCCL to the process's end
                dist.destroy_process_group()
