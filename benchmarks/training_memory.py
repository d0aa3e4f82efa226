"""The estimate of a training step's memory against what the step takes.

    python -m benchmarks.training_memory [--tiny]

On a GPU: a Flamingo of the 3B shape (ViT-L/14, 24 layers of 2,048 channels, cross-attention before
each; random weights), under several settings, two steps each of the largest batch; the peak is
torch's. The gate is an estimate within 10% of it, for each setting. Some 2 minutes, unattended.
`--tiny`: a model of a few MB on a CPU, where live tensors are counted in place of an allocator.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from benchmarks.gates import Gate, print_gates
from flamingo.data.decode import normalization_of
from flamingo.memory.estimate import GB, Estimator
from flamingo.memory.largest_batch import shapes_of
from flamingo.memory.live import LiveMemory
from flamingo.memory.plan import Layout
from flamingo.models.flamingo.family import part_types
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import Train
from flamingo.modules.language_model import resize_vocabulary
from flamingo.modules.meta import materialise, parameters_on_meta
from flamingo.modules.vision import empty_tower
from flamingo.parallel.world import World
from flamingo.parallel.wrap import Wrapped
from flamingo.train.loaders import StreamLoader
from flamingo.train.loop import Trainer
from flamingo.train.optim import clip_gradients, make_optimizer
from flamingo.train.precision import types_of
from flamingo.train.step_counts import StepCounts

MAX_ERROR = 0.1
NUM_STEPS = 2
TINY_TOWER = Path("tests/assets/parity/models/tiny_vit.json")
#: Changes of the options: what is measured.
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {"batch_size_mmc4": 4, "batch_size_laion": 8},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-mixed, accumulation": {"precision": "bf16-mixed", "gradient_accumulation_steps": 2},
    "bf16-mixed, checkpointing": {"precision": "bf16-mixed", "gradient_checkpointing": True},
}


@dataclass(frozen=True)
class Kind:
    """The size of what is measured.

    Attributes:
        tower: of open_clip.
        lm: its config.
        every_n: cross-attention before every n-th block.
        device: to measure on.
    """

    tower: str
    lm: GPTNeoXConfig
    every_n: int
    device: torch.device


def gpu_kind() -> Kind:
    """The 3B shape."""
    lm = GPTNeoXConfig(
        vocab_size=50_432,
        hidden_size=2048,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=8192,
    )
    return Kind("ViT-L-14", lm, 1, torch.device("cuda"))


def tiny_kind() -> Kind:
    """A few MB."""
    open_clip.add_model_config(TINY_TOWER.resolve())
    lm = GPTNeoXConfig(
        vocab_size=512,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
    )
    return Kind("tiny_vit", lm, 2, torch.device("cpu"))


def make_model(kind: Kind, options: Train) -> Flamingo:
    """On the meta device."""
    rows, types = kind.lm.vocab_size, part_types(options.freeze, types_of(options))
    with parameters_on_meta():
        lm = AutoModelForCausalLM.from_config(kind.lm, dtype=types["lm_dtype"])
        resize_vocabulary(lm, rows)
        tower, image_processor = empty_tower(kind.tower)
        model = Flamingo(
            tower.to(types["tower_dtype"]),
            lm,
            eoc_token_id=rows - 3,
            media_token_id=rows - 2,
            pad_token_id=rows - 1,
            cross_attn_every_n_layers=kind.every_n,
        )
    model.set_activation_checkpointing("full" if options.gradient_checkpointing else None)
    model.normalization = normalization_of(image_processor)
    return model.train()


def make_trainer(kind: Kind, options: Train) -> Trainer:
    """With random weights, on the device."""
    model = make_model(kind, options)
    materialise(model, kind.device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    names = ("mmc4", "laion")
    loaders: list[Any] = [StreamLoader(name, iter(()), 1.0, None, lambda: None) for name in names]  # type: ignore[arg-type]
    return Trainer(
        wrapped=Wrapped(model, model),
        optimizer=make_optimizer(model, options),
        loaders=loaders,
        options=options,
        total_steps=NUM_STEPS,
        world=World(device=kind.device),
    )


def take_steps(trainer: Trainer, options: Train) -> None:
    """Steps of the largest batch, the optimizer's step included."""
    shapes = shapes_of(options, Layout())
    batches = {one.name: [trainer.model.largest_batch(one)] * one.passes for one in shapes}
    counts = StepCounts.of(batches, 0.0)
    for _ in range(NUM_STEPS):
        trainer.backward({name: list(micro) for name, micro in batches.items()}, counts)
        clip_gradients(list(trainer.model.parameters()), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)


@contextmanager
def peak_of(device: torch.device) -> Iterator[Callable[[], int]]:
    """Bytes at most while this lasts, and what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    with LiveMemory() as live:
        yield lambda: live.peak.total()


def measure(kind: Kind, options: Train) -> tuple[int, int]:
    """(estimated, measured) bytes of a setting."""
    found = Estimator(
        options, layout=Layout(), device=kind.device, model=make_model(kind, options)
    ).estimate(options)
    with peak_of(kind.device) as peak:
        trainer = make_trainer(kind, options)
        take_steps(trainer, options)
        measured = peak()
    del trainer
    gc.collect()
    if kind.device.type == "cuda":
        torch.cuda.empty_cache()
    return found.total, measured


def bench(kind: Kind) -> list[Gate]:
    """Measure, and print the table."""
    print(f"{'':<28}{'estimated GB':>14}{'measured GB':>14}{'error':>9}")
    gates = []
    for name, changes in SETTINGS.items():
        options = Train(
            lm_path="lm", run_name="run", estimate=True, device=kind.device.type, **changes
        )
        estimated, measured = measure(kind, options)
        error = estimated / measured - 1
        print(f"{name:<28}{estimated / GB:>14.3f}{measured / GB:>14.3f}{error:>9.1%}", flush=True)
        gates.append(Gate(f"memory estimate, {name}", abs(error), MAX_ERROR, at_most=True))
    return gates


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        print("no GPU here: --tiny measures on the CPU", file=sys.stderr)
        return 2
    gates = bench(tiny_kind() if tiny else gpu_kind())
    print_gates(gates)
    return 0 if all(gate.passed for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
