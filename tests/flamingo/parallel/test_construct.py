"""A model built by slices equals the one built whole: two CPU ranks, every family of LMs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM

from flamingo.model.factory import create_model_and_transforms
from flamingo.model.placement import full_tensor
from flamingo.parallel.construct import create_sharded_model
from flamingo.parallel.world import World
from tests.flamingo.model.tiny_hub import TOKENIZER, save_clip
from tests.flamingo.model.tiny_lms import CONFIGS, open_gates

FILE_ROWS = 2001
"""Of the LMs: odd, so that ranks hold different numbers of them, and fewer than the tokenizer's."""

VALUES = ("opt", "gpt_neox")
"""Families whose every value is compared: a tied one, and one whose files say `embed_out`."""


def save_family(folder: Path, family: str, **how: Any) -> None:
    """An LM in files, with norms and biases that are not what they start as."""
    torch.manual_seed(5)
    config = CONFIGS[family](vocab_size=FILE_ROWS, bos_token_id=0, eos_token_id=0)
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.normal_(std=0.2)
    lm.save_pretrained(folder / family, **how)


def arguments(folder: Path, family: str, **more: Any) -> dict[str, Any]:
    return {
        "clip_vision_encoder_path": "tiny_vit",
        "clip_vision_encoder_pretrained": str(folder / "clip.pt"),
        "lang_encoder_path": str(folder / family),
        "tokenizer_path": TOKENIZER,
        "cross_attn_every_n_layers": 2,
        "offline": True,
        "seed": 7,
    } | more


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> torch.Tensor:
    open_gates(model, 0.7)
    ids = torch.tensor([[2001, 5, 6, 7, 2000, 2001, 8, 9], [2001, 9, 10, 11, 12, 13, 14, 2002]])
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    counts = [2, 1]
    mask = (ids != 2002).long()
    return model(ids, mask, images=images, images_per_sample=counts).logits


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    save_clip(Path(folder) / str(rank))  # registers the tower's config
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    world = World(rank=rank, size=2, parallel="fsdp", mesh=mesh)
    found = {}
    for family in CONFIGS:
        model, _, _ = create_sharded_model(**arguments(Path(folder), family), world=world)
        found[family] = {"logits": logits_of(model)}
        if family in VALUES:
            named = model.state_dict().items()
            found[family]["values"] = {name: full_tensor(value) for name, value in named}
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    for rank in range(2):
        (folder / str(rank)).mkdir()
    save_clip(folder)
    for family in CONFIGS:
        save_family(folder, family)
    torch.multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", VALUES)
def test_values_are_those_of_the_model_built_whole(folder, found, family):
    expected = create_model_and_transforms(**arguments(folder, family))[0].state_dict()
    assert list(expected) == list(found[family]["values"])
    for name, value in expected.items():
        assert torch.equal(found[family]["values"][name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_the_model_built_whole(folder, found, family):
    model, _, _ = create_model_and_transforms(**arguments(folder, family))
    torch.testing.assert_close(found[family]["logits"], logits_of(model), atol=1e-5, rtol=1e-5)
