"""What a checkpoint in the background costs the steps that go on meanwhile.

    python -m benchmarks.save [--megabytes 600] [--step-seconds 0.5] [--steps 20] [--pairs 5]

A device that sleeps stands for a GPU. The host queues a step's work by so many small operations of
torch, in one thread, as take it `_HOST_SHARE` of the step when nothing disturbs it; then it waits
until the device's time is over. Blocks of steps come in pairs, one without a save and one with a
save before its first step, which is whole on the disk before the block ends. How much longer the
second block takes is the price of a save; paired, since on a machine with other work only ratios
mean much. The copying to host memory is in it, done by the CPU here; a GPU does that by itself, at
the speed of its bus.
"""

import argparse
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gates import Gate, print_gates
from flamingo.models.family import TrainableModel
from flamingo.train.checkpoint.checkpoint import Checkpointer, RunState
from flamingo.train.checkpoint.retention import SaveRule

AIM_PERCENT = 5.0
_HOST_SHARE = 0.6
_PARAMETERS = 100
_STATES = 3  # tensors of a parameter in a checkpoint: itself and AdamW's two moments


class SavedModel(TrainableModel):
    """Parameters of equal size, which all train; there is nothing to compute."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        each = num_bytes // (_PARAMETERS * _STATES * 4)
        self.values = nn.ParameterList(nn.Parameter(torch.randn(each)) for _ in range(_PARAMETERS))

    def kept_names(self) -> list[str]:
        return list(self.state_dict())

    def identity(self) -> dict[str, Any]:
        return {}


class _NoTokenizer:
    """Stands for a tokenizer that has no files."""

    def save_pretrained(self, folder: str) -> None:
        Path(folder).mkdir()


class SleepingDevice:
    """Steps of a length; the host is busy for a part of each.

    Args:
        seconds: of a step.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._work = torch.zeros(64)
        self._calls = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds * _HOST_SHARE:
            self._queue()
            self._calls += 1

    def step(self) -> None:
        """Queue a step's work, then wait for the device."""
        start = time.perf_counter()
        for _ in range(self._calls):
            self._queue()
        time.sleep(max(0.0, start + self._seconds - time.perf_counter()))

    def _queue(self) -> Tensor:
        return self._work.add_(1.0)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW after a first step, so that it has a state."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def bench(folder: Path, *arguments: str) -> list[Gate]:
    """Measure the pairs; the median of what a save adds is held against the aim."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--step-seconds", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=20, help="of a block")
    parser.add_argument("--pairs", type=int, default=5)
    told = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run = folder / "save"
    shutil.rmtree(run, ignore_errors=True)
    model = SavedModel(told.megabytes * 10**6)
    optimizer = optimizer_of(model)
    saver = Checkpointer(str(run), _NoTokenizer(), SaveRule(keep_last=1), asynchronous=True)
    saver.save(model, optimizer, RunState(step=1))  # the first one asks for its memory
    saver.wait()
    device = SleepingDevice(told.step_seconds)
    added = []
    for pair in range(told.pairs):
        without, _ = _block(device, told.steps)
        start = time.perf_counter()
        saver.save(model, optimizer, RunState(step=2 + pair))
        copied = time.perf_counter() - start
        steps, slowest = _block(device, told.steps)
        begun = time.perf_counter()
        saver.wait()
        late = time.perf_counter() - begun
        added.append(100 * ((copied + steps) / without - 1))
        print(
            f"{told.steps} steps {without:.2f} s; with a save {copied + steps:.2f} s "
            f"({added[-1]:+.1f}%), of it {copied:.3f} s to copy, slowest step {slowest:.3f} s; "
            f"written {late:.2f} s after the last step",
            flush=True,
        )
    saver.close()
    shutil.rmtree(run)
    name = f"a save of {told.megabytes} MB in {told.steps} steps of {told.step_seconds} s"
    return [Gate(name, median(added), AIM_PERCENT, at_most=True, unit="%")]


def _block(device: SleepingDevice, steps: int) -> tuple[float, float]:
    """Seconds of so many steps, and of the slowest."""
    taken = []
    for _ in range(steps):
        start = time.perf_counter()
        device.step()
        taken.append(time.perf_counter() - start)
    return sum(taken), max(taken)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    told, rest = parser.parse_known_args()
    print_gates(bench(told.folder.resolve(), *rest))


if __name__ == "__main__":
    main()
