"""Values onto a device, and into and out of tensors that may be spread over ranks.

FSDP2 keeps rows of a parameter on each rank (`Shard(0)`, cut as `torch.chunk` cuts). Whoever fills
parameters writes whole values or rows by their global number, and what lies on another rank is
left to that rank: no communication, and one whole value alive at a time.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from mmdata.errors import UserError

_MEAN_ROWS = 4096


def local_part(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this rank, sharing its memory; all of one that is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the host does not wait for the copy to a GPU.

    Such a copy has to come from pinned memory; what is not there goes by way of it.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def local_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows of a tensor that lie here, sharing its memory, and the number of the first.

    A tensor that is whole, or a copy on every rank, is here from row 0.
    """
    if not isinstance(tensor, DTensor):
        return tensor, 0
    first = 0
    for dim, placement in enumerate(tensor.placements):
        if placement.is_replicate():
            continue
        assert placement == Shard(0), placement
        num_rows, num_ranks = tensor.shape[0], tensor.device_mesh.size(dim)
        each = -(-num_rows // num_ranks)
        first = min(each * tensor.device_mesh.get_local_rank(dim), num_rows)
    return tensor.to_local(), first


@torch.no_grad()
def assign(target: Tensor, values: Tensor) -> None:
    """Fill a tensor.

    Args:
        target: plain, or spread over ranks: then each rank fills its own rows.
        values: of the whole, of the same shape.
    """
    assert target.shape == values.shape, (target.shape, values.shape)
    here, first = local_rows(target)
    here.copy_(values[first : first + len(here)] if isinstance(target, DTensor) else values)


@torch.no_grad()
def assign_rows(target: Tensor, row: int, values: Tensor) -> None:
    """Fill some rows of a tensor.

    Args:
        target: (R, ...), plain or spread over ranks.
        row: the first that is filled.
        values: (n, ...), n rows.
    """
    here, first = local_rows(target)
    start, stop = max(row, first), min(row + len(values), first + len(here))
    if start < stop:
        here[start - first : stop - first] = values[start - row : stop - row].to(here)


@torch.no_grad()
def row_mean(matrix: Tensor, num_rows: int) -> Tensor:
    """Mean of the first rows, (R, D) -> (D,) fp32; every rank of a spread matrix has to ask.

    In double precision, so that the number of ranks does not show, and by parts, so that there is
    no second copy of the matrix.
    """
    here, first = local_rows(matrix)
    here = here[: max(num_rows - first, 0)]
    total = torch.zeros(matrix.shape[1], dtype=torch.float64, device=here.device)
    for part in here.split(_MEAN_ROWS):
        total += part.double().sum(dim=0)
    if isinstance(matrix, DTensor):
        kinds = [Replicate() if one.is_replicate() else Partial() for one in matrix.placements]
        total = DTensor.from_local(total, matrix.device_mesh, kinds).full_tensor()
    return (total / num_rows).float()


def full_tensor(value: Tensor) -> Tensor:
    """The whole of a spread tensor (every rank has to ask), or the tensor itself; detached."""
    gather: Any = getattr(value, "full_tensor", None)
    return value.detach() if gather is None else gather().detach()


def _fill(
    what: str,
    targets: list[tuple[set[str], Tensor]],
    stored: Mapping[str, Tensor],
    resized: Collection[int] = (),
) -> None:
    """Copies the rows of each target that lie here; a target goes by any of its names."""
    missing = [min(names) for names, _ in targets if names.isdisjoint(stored)]
    if missing:
        raise UserError(
            f"{what}: its weights lack {len(missing)} of {len(targets)} tensors: "
            f"{', '.join(missing[:3])}"
        )
    for names, target in targets:
        name, *others = sorted(names.intersection(stored))
        value = stored[name]
        rows = slice(1 if id(target) in resized else 0, None)
        if value.shape[rows] != target.shape[rows]:
            raise UserError(
                f"{what}: {name}: expected {tuple(target.shape)}, got {tuple(value.shape)}"
            )
        copy_rows(target, value)
        for other in others:
            if not torch.equal(stored[other], value):
                raise UserError(f"{what}: {name} and {other} are one tensor here, two in its files")


@torch.no_grad()
def copy_rows(target: Tensor, value: Tensor) -> None:
    """Copies what of `value` lies here; of a mapped one nothing else is read."""
    here, first = local_rows(target)
    if not target.dim():
        here.copy_(value)
        return
    last = min(first + len(here), len(value))
    if first < last:
        here[: last - first].copy_(value[first:last])
