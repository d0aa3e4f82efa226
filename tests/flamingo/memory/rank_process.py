"""What one rank of two really holds after a step under FSDP; one launch for the tests beside it."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from flamingo.memory.live import local_storage
from flamingo.parallel.shard import shard_model
from tests.flamingo.models.flamingo.tiny_lms import make_flamingo
from tests.flamingo.parallel.rank_process import FAMILIES, batch_of


def held_bytes(tensors: Any) -> int:
    """Bytes of the memory behind tensors, counted once; of spread ones, of what lies here."""
    storages = [local_storage(one) for one in tensors if isinstance(one, Tensor)]
    return sum({one._cdata: one.nbytes() for one in storages}.values())


def after_a_step(model: Any, batch: Any) -> dict[str, int]:
    """Bytes by category of a model, having taken a step with AdamW."""
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(**batch).loss.backward()
    optimizer.step()
    state = [value for one in optimizer.state.values() for value in one.values()]
    return {
        "parameters": held_bytes(model.parameters()),
        "gradients": held_bytes(one.grad for one in trained),
        "optimizer": held_bytes(state),
        "buffers": held_bytes(model.buffers()),
    }


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for family in FAMILIES:
        model = make_flamingo(family).train()
        shard_model(model, mesh)
        found[family] = after_a_step(model, batch_of(rank))
    if rank == 0:
        torch.save(found, Path(folder) / "held.pt")
    dist.barrier()
    dist.destroy_process_group()


def launch(folder: Path) -> dict[str, dict[str, int]]:
    torch.multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2)
    return torch.load(folder / "held.pt", weights_only=True)
