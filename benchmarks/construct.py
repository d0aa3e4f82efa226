"""What a rank holds while it builds its part of a model.

    python -m benchmarks.construct [--folder .bench]

A LLaMA of 420 MB with random weights, spread over two CPU ranks that read it from mapped files.
Memory is anonymous memory (RssAnon of /proc, sampled every 2 ms) above that of the process before,
modules that are imported meanwhile included; pages of mapped files are the system's to take back.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.gates import Gate, print_gates

NUM_RANKS = 2
WIDTH, LAYERS = 1024, 6
ASSETS = Path("tests/assets/parity/models").resolve()
MAX_SHARE = 0.65
"""Of the whole model, that a rank of two may hold: half of it, one tensor, modules."""


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status: expected a line RssAnon")


def _peak_bytes(build: Callable[[], Any]) -> tuple[int, Any]:
    """(anonymous memory at its peak above that before, what was built)."""
    before, peak, done = _anonymous_bytes(), 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _anonymous_bytes())
            time.sleep(0.002)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        built = build()
    finally:
        done.set()
        thread.join()
    return peak - before, built


def _arguments(folder: Path) -> dict[str, Any]:
    import open_clip

    open_clip.add_model_config(ASSETS / "tiny_vit.json")
    return {
        "clip_vision_encoder_path": "tiny_vit",
        "clip_vision_encoder_pretrained": str(folder / "clip.pt"),
        "lang_encoder_path": str(folder / "lm"),
        "tokenizer_path": str(ASSETS / "tokenizer"),
        "cross_attn_every_n_layers": LAYERS,
        "offline": True,
    }


def _make(folder: Path) -> None:
    if (folder / "clip.pt").exists():
        return
    import open_clip

    open_clip.add_model_config(ASSETS / "tiny_vit.json")
    config = LlamaConfig(
        vocab_size=2000,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "lm")
    torch.save(open_clip.create_model("tiny_vit").state_dict(), folder / "clip.pt")


def _rank(rank: int, folder: Path) -> None:
    from flamingo.models.flamingo.build import create_model_and_transforms
    from flamingo.models.flamingo.parallelize import OwnRows
    from flamingo.parallel.world import World
    from flamingo.parallel.wrap import rows_of

    torch.set_num_threads(1)
    arguments = _arguments(folder)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=NUM_RANKS)
    mesh = init_device_mesh("cpu", (NUM_RANKS,))
    world = World(rank=rank, size=NUM_RANKS, parallel="fsdp", mesh=mesh)
    peak, (model, _, _) = _peak_bytes(
        lambda: create_model_and_transforms(**arguments, weights=OwnRows(rows_of(world)))
    )
    whole = sum(one.numel() * one.element_size() for one in model.parameters())
    (folder / f"peak.{rank}").write_text(f"{peak} {whole}")
    dist.barrier()
    dist.destroy_process_group()


def bench(folder: Path) -> list[Gate]:
    """The ranks, in fresh processes."""
    folder = folder.resolve() / "construct"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _make(folder)
    (folder / "store").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_rank, args=(folder,), nprocs=NUM_RANKS)
    found = [(folder / f"peak.{rank}").read_text().split() for rank in range(NUM_RANKS)]
    peak, whole = max((int(one), int(other)) for one, other in found)
    print(f"peak of a rank {peak / 1e6:.0f} MB, whole model {whole / 1e6:.0f} MB")
    return [Gate("construct: a rank's peak / the model", peak / whole, MAX_SHARE, at_most=True)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    print_gates(bench(parser.parse_args().folder))


if __name__ == "__main__":
    main()
