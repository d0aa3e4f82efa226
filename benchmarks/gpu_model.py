"""The time of a training step on a GPU that is not there, modelled from its kernels.

    python -m benchmarks.gpu_model [--shape 3b] [--gpu H100] [--parts] [ROW …]

The trainer takes a step of the benchmark's shape and samples (`train_gpu_shapes.py`,
`train_gpu_batches.py`) on the pretended GPU (`tests/flamingo/gpu/`), whose tensors have no values;
`gpu_meter.py` works out how long each kernel takes. A ROW is a size of step with levers: all of
`ROWS` by default. Printed for each: the device's time, the host's time to start the kernels, the
longer of both, which a step takes, MFU, and the time by kind of work; with --parts by part of the
model as well. MFU counts what the samples ask for, without padding.

Backward passes on the pretended GPU need a C compiler.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.gates import Gate, print_gates
from benchmarks.gpu_meter import GPUS, Meter, Rates
from benchmarks.train_gpu import Bench
from benchmarks.train_gpu_batches import Size, loaders
from benchmarks.train_gpu_shapes import SHAPES, build
from flamingo.data.batch import Batch
from flamingo.data.counts import StreamCounts
from flamingo.models.flamingo.flops import count_flops
from flamingo.models.flamingo.model import Flamingo
from flamingo.parallel.world import World
from flamingo.parallel.wrap import wrap_model
from flamingo.train.loop import Phase, Trainer
from flamingo.train.optim import make_optimizer
from tests.flamingo.gpu import Watch, has_shim, pretended_gpu, shim

#: Seconds that the host takes to start a kernel, with Python, autograd and optimizer. An assumption
#: for eager torch on a fast core, not measured: a GPU's run has to show it.
HOST_SECONDS = 8e-6
AIM_MFU_PERCENT, AIM_HOST_FACTOR = 45.0, 1.3
#: The size of the goal, and one in which the host may be what limits.
FULL, SMALL = Size(), Size(documents=8, pairs=8)


@dataclass(frozen=True, slots=True)
class Row:
    """What is modelled.

    Attributes:
        size: of a step.
        levers: options of the run.
    """

    size: Size = FULL
    levers: dict[str, Any] = field(default_factory=dict)


ROWS: dict[str, Row] = {
    "32+64": Row(),
    "32+64 --pack": Row(levers={"pack": True}),
    "32+64 --gradient-checkpointing": Row(levers={"gradient_checkpointing": True}),
    "8+8": Row(SMALL),
    "8+8 --pack": Row(SMALL, {"pack": True}),
}


@dataclass(frozen=True, slots=True)
class Modelled:
    """A step that was taken without values.

    Attributes:
        name: of the row.
        meter: its kernels.
        watch: what else was done.
        needed_flops: that its samples ask for.
    """

    name: str
    meter: Meter
    watch: Watch
    needed_flops: float

    def device_seconds(self, gpu: Rates) -> float:
        """The sum of its kernels."""
        return sum(self.meter.seconds(gpu).values())

    @property
    def host_seconds(self) -> float:
        """To start all kernels."""
        return HOST_SECONDS * self.meter.num_kernels

    def step_seconds(self, gpu: Rates) -> float:
        """The longer of the two: the host runs ahead, or the device waits for it."""
        return max(self.device_seconds(gpu), self.host_seconds)

    def mfu(self, gpu: Rates) -> float:
        """Share of the data sheet's arithmetic."""
        return self.needed_flops / self.step_seconds(gpu) / gpu.peak

    def lines(self, gpu: Rates, *, by_part: bool) -> Iterator[str]:
        """For a person."""
        kinds: Counter[str] = Counter()
        parts: dict[str, Counter[str]] = {}
        for key, seconds in self.meter.seconds(gpu).items():
            kinds[key.kind] += 1e3 * seconds  # type: ignore[assignment]
            part = parts.setdefault(key.part, Counter())
            part[f"{key.kind} {key.direction}"] += 1e3 * seconds  # type: ignore[assignment]
        yield (
            f"  {self.name:<32}{gpu.name}  step {1e3 * self.step_seconds(gpu):6.1f} ms  "
            f"device {1e3 * self.device_seconds(gpu):6.1f}  host {1e3 * self.host_seconds:6.1f}  "
            f"MFU {self.mfu(gpu):5.1%}  kernels {self.meter.num_kernels:,}  "
            f"reads {self.watch.reads.total()}  "
            f"needed {self.needed_flops / 1e12:.1f} TFLOP, done {self.meter.flops / 1e12:.1f}, "
            f"{self.meter.bytes / 1e9:.0f} GB"
        )
        yield "      " + ", ".join(f"{kind} {ms:.1f}" for kind, ms in kinds.most_common())
        if by_part:
            for label in sorted(parts, key=lambda one: -parts[one].total()):
                split = ", ".join(f"{what} {ms:.1f}" for what, ms in parts[label].most_common(8))
                yield f"      {label:<16}{parts[label].total():6.1f} ms  {split}"
            for (name, dtype, way), count in self.meter.operations.most_common(24):
                yield f"      {count / 1e9:8.2f} GB  {name} {dtype} {way}"


def take_step(shape: str, row: Row, name: str) -> Modelled:
    """A step of a shape on tensors without values, with these levers."""
    bench = Bench(SHAPES[shape], row.size, torch.device("cpu"), 1)
    is_packed = bool(row.levers.get("pack"))
    samples = bench.samples(packed=is_packed)
    options = bench.options(**row.levers)
    batches = {stream: steps[:1] for stream, steps in samples.items()}
    # What is asked of values is answered with no: "is nothing padded", so that a mask is built.
    watch, meter = Watch("meta", meta_truth=False), Meter(_document_pairs(batches))
    with pretended_gpu(watch):
        model = _model(bench, {**row.levers, "pack": False})
        _wrap_parameters(model)
        if is_packed:
            model.allow_packing(tries=False)  # there are no values to try with
        world = World(device=torch.device("cuda"))
        trainer = Trainer(
            wrapped=wrap_model(model, world),
            optimizer=make_optimizer(model, options),
            loaders=loaders(batches),
            options=options,
            total_steps=1000,
            world=world,
            watch=_phases(meter),
        )
        meter.label(model)
        watch.clear()
        watch.meter = meter
        trainer.step()
        watch.meter = None
    flops = count_flops(model)
    if flops is None:
        raise RuntimeError(f"{shape}: its FLOPs cannot be counted")
    needed = sum(flops.of(StreamCounts.of(one)) for one in batches.values())
    return Modelled(name, meter, watch, needed)


def _phases(meter: Meter) -> Callable[[Phase], None]:
    def watch(phase: Phase) -> None:
        if phase == "after backward":
            meter.is_stepping = True

    return watch


def _model(bench: Bench, levers: dict[str, Any]) -> Flamingo:
    """Of shapes alone; nothing is drawn for it."""
    with mock.patch.object(Flamingo, "initialise"):
        return build(bench.shape, bench.tokenizer, bench.options(**levers), torch.device("meta"))


def _wrap_parameters(model: nn.Module) -> None:
    """Put what has no memory on the pretended GPU; what is shared stays shared."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = made.get(id(parameter))
                if moved is None:
                    moved = nn.Parameter(
                        Watch.wrap(parameter.detach()), requires_grad=parameter.requires_grad
                    )
                    made[id(parameter)] = made[id(moved)] = moved
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            if isinstance(buffer, Tensor) and not buffer.is_cuda:
                module._buffers[name] = Watch.wrap(buffer.to("meta"))


def _document_pairs(batches: dict[str, list[Batch]]) -> Callable[[int], float]:
    """Pairs of positions of a document with itself in a batch, by how many positions it has."""
    found: dict[int, float] = {}
    for one in (batch for steps in batches.values() for batch in steps):
        if one.document_index is None:
            continue
        pairs, positions = 0.0, 0
        for row in one.document_index:
            lengths = torch.unique_consecutive(row[row >= 0], return_counts=True)[1]
            pairs += float((lengths.double() ** 2).sum())
            positions += int(lengths.sum())
        found[positions] = found[one.document_index.numel()] = pairs
    return found.__getitem__


@contextmanager
def _quiet() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def gates(found: dict[str, Modelled]) -> list[Gate]:
    """On an H100, of the rows that were modelled."""
    h100, made = GPUS["H100"], []
    if "32+64" in found:
        mfu = 100 * found["32+64"].mfu(h100)
        made.append(Gate("modelled MFU at 32+64, H100", mfu, AIM_MFU_PERCENT, unit="%"))
    if {"32+64", "32+64 --pack"} <= found.keys():
        plain, packed = (found[name].step_seconds(h100) for name in ("32+64", "32+64 --pack"))
        made.append(Gate("step unpacked, times packed", plain / packed, 1.0))
    if "8+8" in found:
        small = found["8+8"]
        factor = small.step_seconds(h100) / small.device_seconds(h100)
        made.append(
            Gate("step at 8+8, times the device's time", factor, AIM_HOST_FACTOR, at_most=True)
        )
    return made


def bench(
    shape: str = "3b",
    rows: list[str] | None = None,
    gpus: list[str] | None = None,
    *,
    by_part: bool = False,
) -> list[Gate]:
    """Model each row, and print it for each GPU."""
    found: dict[str, Modelled] = {}
    with _quiet():
        for name in rows or ROWS:
            found[name] = take_step(shape, ROWS[name], name)
            for gpu in gpus or GPUS:
                for line in found[name].lines(GPUS[gpu], by_part=by_part):
                    print(line, flush=True)
    return gates(found)


def part() -> list[Gate]:
    """All rows, in a process that can run backward passes."""
    if has_shim():
        return bench()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "gates.json"
        _rerun(Path(folder), "--gates", str(told))
        return [Gate(**one) for one in json.loads(told.read_text(encoding="utf-8"))]


def _rerun(folder: Path, *words: str) -> int:
    """This module in another process, with a shim in a folder; returns the exit code."""
    return shim.rerun(folder, [sys.executable, "-m", "benchmarks.gpu_model", *words])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="all by default")
    parser.add_argument("--shape", choices=SHAPES, default="3b")
    parser.add_argument("--gpu", choices=GPUS, action="append", help="all by default")
    parser.add_argument("--parts", action="store_true", help="time by part and by operation")
    parser.add_argument("--gates", type=Path, help="write the gates into this file")
    options = parser.parse_args()
    if not has_shim():
        with tempfile.TemporaryDirectory() as folder:
            return _rerun(Path(folder), *sys.argv[1:])
    made = bench(options.shape, options.rows, options.gpu, by_part=options.parts)
    if options.gates is None:
        print_gates(made)
    else:
        options.gates.write_text(json.dumps([asdict(one) for one in made]), encoding="utf-8")
    return 0 if all(gate.passed for gate in made) else 1


if __name__ == "__main__":
    sys.exit(main())
