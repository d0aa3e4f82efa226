"""What two ranks compute for the tests beside it, in one launch: starting processes is the cost.

Rank 0 leaves `found.pt`; the tests compare it with what one process computes.
"""

import os
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from flamingo.models.flamingo.build import create_model_and_transforms
from flamingo.models.flamingo.checkpoint import (
    export_openflamingo,
    full_tensor,
    trainable_state_dict,
)
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.parallelize import OwnRows
from flamingo.modules.adapter_settings import AdapterSettings
from flamingo.modules.checkpoint_files import write_weights
from flamingo.parallel.shard import shard_model
from flamingo.parallel.world import World
from flamingo.parallel.wrap import rows_of
from tests.flamingo.models.flamingo.tiny_hub import TOKENIZER, save_clip
from tests.flamingo.models.flamingo.tiny_lms import CONFIGS, PAD, make_flamingo, open_gates, prompts

FAMILIES = ("opt", "gpt_neox")
"""A tied one, and an untied one whose files say `embed_out`."""
KINDS = ("ddp", "fsdp", "hsdp")
FILE_ROWS = 2001
"""Of the LMs: odd, so that ranks hold different numbers of them, and fewer than the tokenizer's."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": ("opt", {}),
    "untied": ("gpt_neox", {}),
    "mean": ("gpt_neox", {"new_token_init": "mean"}),
    "bf16": ("llama", {"lm_dtype": torch.bfloat16}),
    "hsdp": ("opt", {}),
    "lora": ("phi3", {"adapters": AdapterSettings(kind="lora", r=4)}),
    "ours": ("opt", {"init_from": "ours.safetensors"}),
    "openflamingo": ("gpt_neox", {"init_from": "openflamingo.pt"}),
}
"""Models whose every value is compared: an LM and options."""


# ---- files


def save_family(folder: Path, family: str) -> None:
    """An LM in files, of another kind for some families."""
    torch.manual_seed(5)
    config = CONFIGS[family](vocab_size=FILE_ROWS, bos_token_id=0, eos_token_id=0)
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # norms and biases too: what is not read has to show
        for parameter in lm.parameters():
            parameter.normal_(std=0.2)
    size = {"gpt_neox": "100KB", "gpt2": "200KB"}.get(family, "1GB")
    lm.save_pretrained(folder / family, max_shard_size=size)
    if family in ("llama", "mistral"):
        (folder / family / "model.safetensors").unlink()
        zipped = family == "llama"  # else the format before torch 1.6
        path = folder / family / "pytorch_model.bin"
        torch.save(lm.state_dict(), path, _use_new_zipfile_serialization=zipped)


def save_files(folder: Path) -> None:
    for rank in range(2):
        (folder / str(rank)).mkdir()
    save_clip(folder)
    for family in CONFIGS:
        save_family(folder, family)
    for name, family, weights_of in (
        ("ours.safetensors", "opt", trainable_state_dict),
        ("openflamingo.pt", "gpt_neox", export_openflamingo),
    ):
        model, _, _ = create_model_and_transforms(**arguments(folder, family, seed=8))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3)
        if name.endswith(".pt"):
            torch.save(weights_of(model), folder / name)
        else:
            assert model.facts is not None
            write_weights(folder / name, weights_of(model), model.identity())


def arguments(folder: Path, family: str, **more: Any) -> dict[str, Any]:
    if "init_from" in more:
        more["init_from"] = folder / more["init_from"]
    return {
        "clip_vision_encoder_path": "tiny_vit",
        "clip_vision_encoder_pretrained": str(folder / "clip.pt"),
        "lang_encoder_path": str(folder / family),
        "tokenizer_path": TOKENIZER,
        "cross_attn_every_n_layers": 2,
        "offline": True,
        "seed": 7,
    } | more


# ---- what is computed, by one process as well


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


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Of what trains; nothing else may have one."""
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert (gradient is not None) == parameter.requires_grad, name
        if gradient is not None:
            found[name.removeprefix("module.")] = full_tensor(gradient)
    return found


PIXELS = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
PROMPTS = torch.tensor([[2001, 5, 6, 7, 2000, 2001, 8, 9], [2001, 9, 10, 11, 12, 13, 14, 2002]])


@torch.no_grad()
def logits_of(model: Flamingo) -> Tensor:
    open_gates(model, 0.7)
    mask = (PROMPTS != 2002).long()
    return model(PROMPTS, mask, images=PIXELS, images_per_sample=[2, 1]).logits


def generated(model: Flamingo) -> Tensor:
    return model.generate(
        PROMPTS[:1], images=PIXELS[:2], images_per_sample=[2], max_new_tokens=4, min_new_tokens=4
    )


_SMALL_BYTES = 10_000


def _is_file(address: int) -> bool:
    """Whether a file is mapped there."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            return path.startswith("/")
    return False


def _plain(tree: Any) -> list[Tensor]:
    """The tensors in memory, spread ones by the part that lies here."""
    leaves = (one for one in tree_leaves(tree) if isinstance(one, Tensor))
    here = (one.to_local() if isinstance(one, DTensor) else one for one in leaves)
    return [one for one in here if one.device.type == "cpu"]


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations made and that are alive, but for mapped files."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in _plain(out):
            self._see(one.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._alive or num_bytes < _SMALL_BYTES or _is_file(storage.data_ptr()):
            return
        self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, num_bytes))
        self.now += num_bytes
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, num_bytes: int) -> None:
        del self._alive[key]
        self.now -= num_bytes


# ---- the ranks


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    path = Path(folder)
    save_clip(path / str(rank))  # registers the tower's config
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    copies = init_device_mesh("cpu", (1, 2), mesh_dim_names=("copies", "shards"))
    found = {
        "gradients": _gradients(rank, mesh, copies),
        "values": _values(path, rank, mesh, copies),
        "logits": _logits(path, rank, mesh),
        "memory": _memory(path, rank, mesh),
    }
    if rank == 0:
        torch.save(found, path / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def _gradients(rank: int, mesh: DeviceMesh, copies: DeviceMesh) -> dict[str, dict[str, Tensor]]:
    found = {}
    for family in FAMILIES:
        for kind in KINDS:
            model = make_flamingo(family, vision_chunk=2).train()  # two chunks on rank 0
            model.set_activation_checkpointing("full" if kind == "fsdp" else None)
            runner: nn.Module = model
            if kind == "ddp":
                runner = DistributedDataParallel(model)
            else:
                shard_model(model, mesh if kind == "fsdp" else copies)
            runner(**batch_of(rank)).loss.backward()
            found[f"{family}.{kind}"] = gradients(runner)
    return found


def _world(rank: int, mesh: DeviceMesh) -> World:
    return World(rank=rank, size=2, parallel="fsdp" if mesh.ndim == 1 else "hsdp", mesh=mesh)


def _values(
    folder: Path, rank: int, mesh: DeviceMesh, copies: DeviceMesh
) -> dict[str, dict[str, Tensor]]:
    found = {}
    for variant, (family, options) in VARIANTS.items():
        world = _world(rank, copies if variant == "hsdp" else mesh)
        model, _, _ = create_model_and_transforms(
            **arguments(folder, family, **options), weights=OwnRows(rows_of(world))
        )
        assert all(isinstance(one, DTensor) for one in model.parameters())
        found[variant] = {name: full_tensor(x) for name, x in model.state_dict().items()}
    return found


def _logits(folder: Path, rank: int, mesh: DeviceMesh) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for family in CONFIGS:
        world = _world(rank, mesh)
        model, _, _ = create_model_and_transforms(
            **arguments(folder, family), weights=OwnRows(rows_of(world))
        )
        if family == "opt":
            model.allow_packing()  # runs the LM by itself, as `generate` does
        found[family] = logits_of(model)
        if family == "opt":
            found["generated"] = generated(model)
    return found


def _memory(folder: Path, rank: int, mesh: DeviceMesh) -> dict[str, int]:
    with LiveBytes() as live:
        options = arguments(folder, "gpt_neox", new_token_init="mean")
        rows = rows_of(_world(rank, mesh))
        model, _, _ = create_model_and_transforms(**options, weights=OwnRows(rows))
        return {
            "above_shards": live.peak - live.now,
            "left": live.now,
            "largest": max(x.numel() * x.element_size() for x in model.parameters()),
            "whole": sum(x.numel() * x.element_size() for x in model.parameters()),
        }


def launch(folder: Path) -> dict[str, Any]:
    save_files(folder)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2)
    return torch.load(folder / "found.pt", weights_only=True)
