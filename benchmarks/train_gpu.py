"""Speed and memory of a training step on a GPU, with each lever and against a plain loop.

    python -m benchmarks.train_gpu [--tiny] [--steps 8] [--budget-gb 80] [--folder .bench]

A Flamingo of the 3B shape with random weights takes steps of 32 documents and 64 pairs
(`train_gpu_shapes.py`, `train_gpu_batches.py`) in bf16-mixed: plain, with --pack, --compile,
checkpointing, precomputed features, and all of those that make it faster. In the same run the same
samples go through a plain eager loop of OpenFlamingo's shape (`train_gpu_peer.py`), padded as
there, and ragged, so that what padding costs stands apart. Then: a profile of one step with the
number of reads from the device, the share of a step that waits for the real loader, and the 9B
shape under a cap of memory, with as few levers as it takes.

MFU counts what the samples ask for (`flamingo/models/flamingo/flops.py`), the same for all loops;
so a loop that computes padding or computes blocks twice has a lower one. The first steps (a whole
round of the samples, in which everything is compiled) are left out of the time.

Made to run unattended in under 8 minutes; without a GPU, --tiny runs all of it but memory on a CPU
in under a minute, and its numbers say that it runs, nothing else.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.convert import ready_corpus
from benchmarks.gates import Gate, load_average, print_gates
from benchmarks.loader import ready_shards
from benchmarks.loader_apart import load_tokenizer, our_stream
from benchmarks.train_gpu_batches import NUM_STEPS, Size, loaders, make_steps
from benchmarks.train_gpu_peer import PlainLoop
from benchmarks.train_gpu_shapes import SHAPES, Shape, build
from flamingo.data.batch import Batch
from flamingo.data.counts import StreamCounts
from flamingo.data.decode import Normalization
from flamingo.data.order import Position
from flamingo.models.family import StepFlops
from flamingo.models.flamingo.flops import count_flops
from flamingo.models.flamingo.model import Flamingo
from flamingo.models.flamingo.options import Train
from flamingo.parallel.world import World
from flamingo.parallel.wrap import wrap_model
from flamingo.telemetry.peak import peak_flops
from flamingo.train import compile as compile_module
from flamingo.train.loaders import StreamLoader
from flamingo.train.loop import Trainer
from flamingo.train.optim import make_optimizer
from mmdata.training_view.sequence import MediaTokenizer

AIM_FACTOR, AIM_READS, AIM_WAIT_PERCENT = 2.5, 1, 2.0
NORMALIZATION = Normalization(
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)
PADDED, RAGGED = "plain loop, padded", "plain loop, ragged"
#: What is measured -> levers; `features` is no option of the model but of its samples.
VARIANTS: dict[str, dict[str, Any]] = {
    "mmdata": {},
    "--pack": {"pack": True},
    "--gradient-checkpointing": {"gradient_checkpointing": True},
    "features": {"features": True},
    "--compile": {"compile": True},
    "--compile --pack": {"compile": True, "pack": True},
    "--compile --pack, features": {"compile": True, "pack": True, "features": True},
}
#: Of the 9B shape, until one fits: each adds to the one before.
RUNGS: dict[str, dict[str, Any]] = {
    "bf16-mixed": {},
    "+ --gradient-checkpointing": {"gradient_checkpointing": True},
    "+ --optimizer adamw8bit": {"optimizer": "adamw8bit"},
    "+ --cpu-offload optimizer": {"optimizer": "adamw", "cpu_offload": "optimizer"},
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of taking steps.

    Attributes:
        name: of it.
        seconds: of a step.
        samples_per_second: documents and pairs.
        mfu: share of the GPU's peak; None where that is not known.
        peak_bytes: of the GPU's memory that was allocated; None on a CPU.
        losses: of the first step.
    """

    name: str
    seconds: float
    samples_per_second: float
    mfu: float | None
    peak_bytes: int | None
    losses: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """For a person."""
        mfu = "-" if self.mfu is None else f"{self.mfu:.1%}"
        peak = "-" if self.peak_bytes is None else f"{self.peak_bytes / 1e9:.1f} GB"
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items())
        return (
            f"  {self.name:<28}{self.samples_per_second:>9.1f} samples/s  MFU {mfu:>6}  "
            f"peak {peak:>9}  first loss {losses}"
        )


class Bench:
    """A shape on a device, and its samples."""

    def __init__(self, shape: Shape, size: Size, device: torch.device, steps: int) -> None:
        self.shape, self.size, self.device, self.steps = shape, size, device, steps
        self.warm_steps = NUM_STEPS if device.type == "cuda" else 1
        self.raw_tokenizer = load_tokenizer()
        self.tokenizer = MediaTokenizer(self.raw_tokenizer)

    def options(self, **levers: Any) -> Train:
        """As of `mmdata train`; what says where data and models lie is not looked at."""
        given: dict[str, Any] = {
            **{"lm_path": "random", "run_name": "random", "mmc4_shards": "random"},
            **{"laion_shards": "random", "precision": "bf16-mixed", "max_steps": 1000},
        }
        return Train(**(given | levers))

    def samples(self, *, features: bool = False, packed: bool = False) -> dict[str, list[Batch]]:
        """A few steps of them."""
        media = "features" if features else "pixels"
        return make_steps(self.shape, self.tokenizer, self.size, media=media, packed=packed)

    def trainer(self, sources: list[StreamLoader], **levers: Any) -> Trainer:
        """Our loop, as a run has it."""
        with_tower = not levers.pop("features", False)
        options = self.options(**levers)
        model = build(self.shape, self.tokenizer, options, self.device, with_tower=with_tower)
        model.normalization = NORMALIZATION
        world = World(device=self.device)
        return Trainer(
            wrapped=wrap_model(model, world),
            optimizer=make_optimizer(model, options),
            loaders=sources,
            options=options,
            total_steps=1000,
            world=world,
        )

    def measure(self, name: str, levers: dict[str, Any]) -> Measured:
        """Our loop with some levers."""
        samples = self.samples(features="features" in levers, packed="pack" in levers)
        trainer = self.trainer(loaders(samples), **levers)
        return self._timed(name, samples, trainer.model, lambda: trainer.step().losses)

    def measure_peer(self, name: str, *, padded: bool) -> Measured:
        """The plain loop; its frozen weights are fp32."""
        samples = self.samples()
        options = self.options(precision="fp32")
        model = build(self.shape, self.tokenizer, options, self.device, attention="eager")
        loop = PlainLoop(model, samples, NORMALIZATION, self.device, padded=padded)
        return self._timed(name, samples, model, loop.step)

    def _timed(
        self,
        name: str,
        samples: dict[str, list[Batch]],
        model: Flamingo,
        step: Callable[[], dict[str, float]],
    ) -> Measured:
        losses = step()
        for _ in range(self.warm_steps - 1):
            step()
        self.wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(self.steps):
            step()
        self.wait()
        seconds = (time.perf_counter() - start) / self.steps
        flops = count_flops(model)
        return Measured(
            name,
            seconds,
            (self.size.documents + self.size.pairs) / seconds,
            None if flops is None else self._mfu(flops, samples, seconds),
            self.peak_bytes(),
            losses,
        )

    def _mfu(
        self, flops: StepFlops, samples: dict[str, list[Batch]], seconds: float
    ) -> float | None:
        if self.device.type != "cuda":
            return None
        peak = peak_flops(torch.cuda.get_device_name(), "half")
        if peak is None:
            return None
        needed = sum(flops.of(StreamCounts.of(batches)) for batches in samples.values())
        return needed / NUM_STEPS / seconds / peak

    def wait(self) -> None:
        """Until the device has done what was queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_bytes(self) -> int | None:
        """Allocated on the GPU at most since it was last reset."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None


def free() -> None:
    """Give back what the last model held; compiled code stays in its cache on the disk."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def compare(bench: Bench) -> list[Measured]:
    """Both plain loops, then ours with its levers; what runs out of memory is told and left out."""
    works: dict[str, Callable[[], Measured]] = {
        PADDED: lambda: bench.measure_peer(PADDED, padded=True),
        RAGGED: lambda: bench.measure_peer(RAGGED, padded=False),
    }
    for name, levers in VARIANTS.items():
        works[name] = lambda name=name, levers=levers: bench.measure(name, levers)  # type: ignore[misc]
    found = []
    for name, work in works.items():
        try:
            found.append(work())
            print(found[-1].line(), flush=True)
        except torch.OutOfMemoryError:
            print(f"  {name:<28} out of memory", flush=True)
        free()
    return found


def profile(bench: Bench) -> int | None:
    """Prints the profile of a step; returns how often it read from the device (a GPU)."""
    trainer = bench.trainer(loaders(bench.samples()))
    for _ in range(2):
        trainer.step()
    bench.wait()
    on_gpu = bench.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        trainer.step()
        bench.wait()
    events = found.key_averages()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    print(events.table(sort_by=order, row_limit=12, max_name_column_width=48), flush=True)
    if not on_gpu:
        return None
    reads = sum(event.count for event in events if event.key.startswith("Memcpy DtoH"))
    print(f"  reads from the device in a step: {reads}", flush=True)
    return reads


def wait_percent(bench: Bench, folder: Path, docs: int, levers: dict[str, Any]) -> float:
    """The median share of a step that waits for documents from real shards."""
    shards = ready_shards(ready_corpus(folder, docs), "shards")
    batch = min(bench.size.documents, docs // 4)
    stream = our_stream(
        shards,
        bench.raw_tokenizer,
        batch_size=batch,
        image_size=bench.shape.image_size,
        decode_threads=os.cpu_count() or 1,
        lanes=batch,
    )
    start = Position()
    source = StreamLoader("mmc4", stream.steps(start), 1.0, start, stream.damage)
    trainer = bench.trainer([source], **levers)
    shares = []
    for _ in range(bench.warm_steps + bench.steps):
        report = trainer.step()
        shares.append(100 * report.wait_seconds / report.seconds)
    source.steps.close()
    found = median(shares[bench.warm_steps :])
    print(f"  waits for data {found:.2f}% of a step, median of {bench.steps}", flush=True)
    return found


def fit(bench: Bench, budget_gb: float) -> str | None:
    """The first rung whose steps stay in the budget, or None; the budget caps a GPU's memory."""
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        total = torch.cuda.get_device_properties(bench.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_gb * 1e9 / total))
    levers: dict[str, Any] = {}
    try:
        for name, more in RUNGS.items():
            levers |= more
            free()
            try:
                losses = _two_steps(bench, levers)
            except torch.OutOfMemoryError:
                print(f"  {name:<28} does not fit {budget_gb:g} GB", flush=True)
                continue
            peak = bench.peak_bytes()
            told = "not measured on a CPU" if peak is None else f"{peak / 1e9:.1f} GB"
            print(f"  {name:<28} fits {budget_gb:g} GB: peak {told}; loss {losses}", flush=True)
            return name
    finally:
        if on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return None


def _two_steps(bench: Bench, levers: dict[str, Any]) -> dict[str, float]:
    """The second has the optimizer's state in memory; nothing is left of the model behind it."""
    trainer = bench.trainer(loaders(bench.samples()), **levers)
    trainer.step()
    return trainer.step().losses


def gates(
    found: list[Measured], reads: int | None, waiting: float, rung: str | None, budget_gb: float
) -> list[Gate]:
    """Of a GPU."""
    rates = {one.name: one.samples_per_second for one in found}
    best = max((rate for name, rate in rates.items() if name in VARIANTS), default=0.0)
    made = [
        Gate("reads from the device in a step", reads or 0, AIM_READS, at_most=True),
        Gate("share of a step spent waiting", waiting, AIM_WAIT_PERCENT, at_most=True, unit="%"),
        Gate(f"the 9B shape fits {budget_gb:g} GB", float(rung is not None), 1),
    ]
    if PADDED in rates:
        made.insert(0, Gate("samples/s, times the plain loop", best / rates[PADDED], AIM_FACTOR))
    return made


def tell_factors(found: list[Measured]) -> None:
    """The goal's two factors: against the loop that pads, and with both fed ragged images."""
    rates = {one.name: one.samples_per_second for one in found}
    for peer in (PADDED, RAGGED):
        if peer in rates:
            factors = (f"{name} {rates[name] / rates[peer]:.2f}" for name in VARIANTS
                       if name in rates)  # fmt: skip
            print(f"  times the {peer}: {', '.join(factors)}", flush=True)


def bench(
    folder: Path, *, tiny: bool = False, steps: int = 8, budget_gb: float = 80.0
) -> list[Gate]:
    """All parts; no gates without a GPU."""
    on_gpu = torch.cuda.is_available() and not tiny
    if not (on_gpu or tiny):
        raise SystemExit("no CUDA device: --tiny runs the same code on a CPU")
    device = torch.device("cuda" if on_gpu else "cpu")
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    torch.set_float32_matmul_precision("high")
    if not on_gpu:
        torch.set_num_threads(1)
        compile_module.BACKEND = "eager"  # a C++ compiler would take most of the minute
    start = time.monotonic()
    size = Size() if on_gpu else Size(2, 3, 24, 12)
    three = Bench(SHAPES["3b" if on_gpu else "tiny"], size, device, steps)
    print(f"3B shape on {name}, a step of {size}:" if on_gpu else f"tiny shape on {name}:")
    found = compare(three)
    tell_factors(found)
    reads = profile(three)
    free()
    fast: dict[str, Any] = {"compile": True} if on_gpu else {}
    waiting = wait_percent(three, folder, 400 if on_gpu else 24, fast)
    free()
    nine = Bench(SHAPES["9b" if on_gpu else "tiny"], size, device, steps)
    print(f"9B shape in {budget_gb:g} GB:" if on_gpu else "tiny shape in its place:")
    rung = fit(nine, budget_gb)
    free()
    report = {"device": name, "measured": [asdict(one) for one in found], "reads": reads,
              "wait_percent": waiting, "nine_fits_with": rung}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_gpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{time.monotonic() - start:.0f} s in all; {folder / 'train_gpu.json'}")
    return gates(found, reads, waiting, rung, budget_gb) if on_gpu else []


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="on a CPU, to see that it runs")
    parser.add_argument("--steps", type=int, default=8, help="timed, of each variant")
    parser.add_argument("--budget-gb", type=float, default=80.0, help="of the 9B shape")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    options = parser.parse_args()
    made = bench(
        options.folder.resolve(),
        tiny=options.tiny,
        steps=options.steps,
        budget_gb=options.budget_gb,
    )
    print_gates(made)
    print(load_average())
    return 0 if all(gate.passed for gate in made) else 1


if __name__ == "__main__":
    sys.exit(main())
