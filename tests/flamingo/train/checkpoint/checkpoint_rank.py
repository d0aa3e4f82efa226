"""Ranks as processes: they take steps on a tiny Flamingo, save, and restore what others saved.

`python -m tests.flamingo.train.checkpoint.checkpoint_rank FOLDER` runs 4 ranks and then 2, forked
from one process that has imported torch: imports are most of what a rank costs.

The same four samples make each global batch, whoever holds them, in float64, so that every way of
spreading the model gives the same numbers but for the last bits.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from flamingo.models.flamingo.checkpoint import full_tensor
from flamingo.models.flamingo.model import Flamingo
from flamingo.parallel.shard import shard_model
from flamingo.parallel.world import World
from flamingo.train.checkpoint.checkpoint import Checkpointer, RunState, restore
from flamingo.train.checkpoint.retention import SaveRule
from flamingo.train.checkpoint.tensors import tensors_of
from flamingo.train.signals import StopRequest
from tests.flamingo.models.flamingo.tiny_lms import PAD, make_flamingo, prompts

STEPS = 5
SAMPLES = (0, 1, 2, 1)  # of the prompts; with four ranks one has no image


class NoTokenizer:
    """Stands for a tokenizer that has no files."""

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir()


class Run:
    """A model, spread as the world says, with its optimizer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model: Flamingo = make_flamingo("opt").double().train()
        self._runner: nn.Module = self.model
        if world.is_sharded:
            assert world.mesh is not None
            shard_model(self.model, world.mesh)
        elif world.size > 1:
            self._runner = DistributedDataParallel(self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": trained[::2], "weight_decay": 0.1},
            {"params": trained[1::2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-2)

    def steps(self, first: int, count: int = STEPS) -> None:
        for step in range(first, first + count):
            for group in self.optimizer.param_groups:
                group["lr"] = 1e-2 / (1 + step)
            loss = self._runner(**self._batch()).loss
            (loss * self.world.size / 20).backward()  # ranks are averaged
            self.optimizer.step()
            self.optimizer.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer state, whole."""
        found = tensors_of(self.model, self.optimizer, self.world)
        return {
            name: full_tensor(value).clone()
            for name, value in found.items()
            if not name.startswith("random.")
        }

    def _batch(self) -> dict[str, Any]:
        ids, mask, images, counts = prompts()
        mine = SAMPLES[self.world.rank :: self.world.size]
        first = [sum(counts[:row]) for row in range(len(counts))]
        pictures = [images[first[row] : first[row] + counts[row]] for row in mine]
        stack = torch.cat(pictures).double()
        rows = list(mine)
        return {
            "input_ids": ids[rows],
            "attention_mask": mask[rows],
            "labels": ids[rows].masked_fill(ids[rows] == PAD, -100),
            "images": stack if len(stack) else None,
            "images_per_sample": [counts[row] for row in rows],
            "loss_reduction": "sum",
            "keep_graph": True,
        }


def checkpoint_of(folder: str, name: str, step: int) -> str:
    return f"{folder}/{name}/checkpoints/step-{step:08d}"


#: How to spread the model, what to restore, the name to save under, the step to start at.
Case = tuple[str, str | None, str, int]


def be_rank(rank: int, size: int, folder: str, cases: list[Case]) -> None:
    """Run the cases and write down what was found."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{size}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    found: dict[str, Any] = {}
    for parallel, source, target, first in cases:
        hybrid = parallel == "hsdp"
        mesh = init_device_mesh(
            "cpu",
            (2, size // 2) if hybrid else (size,),
            mesh_dim_names=("copies", "shards") if hybrid else None,
        )
        hosts: dict[str, Any] = {"local_rank": rank % 2, "local_size": 2}
        world = World(rank=rank, size=size, parallel=parallel, mesh=mesh, **hosts)  # type: ignore[arg-type]
        run = Run(world)
        if source is not None:
            restore(checkpoint_of(folder, source, first), run.model, run.optimizer, world)
            found[f"{target} restored"] = run.tensors()
        run.steps(first)
        found[f"{target} stepped"] = run.tensors()
        saver = Checkpointer(
            f"{folder}/{target}", NoTokenizer(), SaveRule(), world=world, asynchronous=True
        )
        saver.save(run.model, run.optimizer, RunState(step=first + STEPS))
        run.steps(first + STEPS, 1)  # changes every tensor while it may not be written yet
        saver.close()
    with StopRequest() as stop:
        if rank == size - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        found[f"agreed by {size}"] = world.gather(stop.decide(world.total(stop.votes())))
    if rank == 0:
        torch.save(found, f"{folder}/found-{size}.pt")
    dist.barrier()
    dist.destroy_process_group()


ON_FOUR: list[Case] = [
    ("ddp", None, "ddp4", 0),
    ("fsdp", "ddp4", "fsdp4", STEPS),
    ("hsdp", "ddp4", "hsdp4", STEPS),
]
ON_TWO: list[Case] = [
    ("ddp", "fsdp4", "ddp2", 2 * STEPS),
    ("fsdp", "hsdp4", "fsdp2", 2 * STEPS),
]


if __name__ == "__main__":
    for ranks, cases in ((4, ON_FOUR), (2, ON_TWO)):
        torch.multiprocessing.start_processes(
            be_rank, args=(ranks, sys.argv[1], cases), nprocs=ranks, start_method="fork"
        )
