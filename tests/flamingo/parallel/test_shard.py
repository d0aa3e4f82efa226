"""The model under DDP and FSDP2, on two CPU ranks; one of them has no image in its batch."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from flamingo.parallel.shard import shard_model
from tests.flamingo.model.tiny_lms import PAD, make_flamingo, prompts

FAMILIES = ("opt", "gpt_neox")
KINDS = ("ddp", "fsdp")


def batch_of(rank: int) -> dict[str, object]:
    """Rank 0 has the two prompts with images, rank 1 the one without."""
    ids, mask, images, counts = prompts()
    rows = slice(0, 2) if rank == 0 else slice(2, 3)
    return {
        "input_ids": ids[rows],
        "attention_mask": mask[rows],
        "labels": ids[rows].masked_fill(ids[rows] == PAD, -100),
        "images": images if rank == 0 else None,
        "images_per_sample": counts[rows],
        "loss_reduction": "sum",
        "keep_graph": True,
    }


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            assert gradient is not None, name
            whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
            found[name.removeprefix("module.")] = whole
    return found


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = {}
    for family in FAMILIES:
        for kind in KINDS:
            model = make_flamingo(family, vision_chunk=2).train()  # two chunks on rank 0
            model.set_activation_checkpointing(enabled=kind == "fsdp")
            runner: torch.nn.Module = model
            if kind == "ddp":
                runner = DistributedDataParallel(model)
            else:
                shard_model(model, init_device_mesh("cpu", (2,)))
            runner(**batch_of(rank)).loss.backward()
            found[f"{family}.{kind}"] = gradients(runner)
    if rank == 0:
        torch.save(found, Path(folder) / "gradients.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2)
    return torch.load(folder / "gradients.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_two_ranks_give_the_gradients_of_one_process(sharded, family, kind):
    model = make_flamingo(family).train()
    for rank in (0, 1):
        (model(**batch_of(rank)).loss / 2).backward()  # ranks are averaged
    expected = gradients(model)
    found = sharded[f"{family}.{kind}"]
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
