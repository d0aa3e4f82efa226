"""Whether a step takes as long as the longer of drawing its data and computing, not as both.

    python -m benchmarks.draw [--milliseconds 40] [--steps 25]

The trainer's own step on a device that sleeps: a pass only adds to the time until which the device
is busy, and reading the losses waits until then. Drawing a step sleeps as well, on the host. Three
runs: drawing takes half as long as computing, as long, and twice as long. Held is the median over
steps of the time taken beyond the longer of both, as a share of it. The first step, whose data
nothing was computed beside, and the last, beside which nothing is drawn, are left out.
"""

import argparse
import dataclasses
import time
from collections.abc import Generator
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.gates import Gate, print_gates
from flamingo.data.batch import Batch, blank_batch
from flamingo.data.damage import DamageCount
from flamingo.data.order import Position
from flamingo.models.family import TrainableModel
from flamingo.models.flamingo.options import Train
from flamingo.parallel.wrap import Wrapped
from flamingo.train import loop
from flamingo.train.loaders import StreamLoader

AIM_PERCENT = 15.0
_RATIOS = (0.5, 1.0, 2.0)


@dataclasses.dataclass(slots=True)
class SleepingQueue:
    """A device that takes work in without a wait.

    Attributes:
        busy_until: on the clock of `time.perf_counter`.
    """

    busy_until: float = 0.0

    def add(self, seconds: float) -> None:
        """Queue work of a length."""
        self.busy_until = max(self.busy_until, time.perf_counter()) + seconds

    def wait(self) -> None:
        """Until all that was queued is done."""
        time.sleep(max(0.0, self.busy_until - time.perf_counter()))


class QueuedModel(TrainableModel):
    """A pass is so many seconds of work for a device.

    Args:
        device: that does it.
        seconds: of a pass, forward and backward.
    """

    def __init__(self, device: SleepingQueue, seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self._work = device, seconds

    def loss(self, batch: Batch, device: torch.device, through: nn.Module | None = None) -> Tensor:
        queue, seconds = self._work
        queue.add(seconds)
        return self.weight.sum() * batch.num_targets


def slow_steps(seconds: float) -> Generator[list[Batch], None, None]:
    """Steps of one batch that take the host some seconds to draw."""
    batch = dataclasses.replace(blank_batch(), num_targets=1)
    while True:
        time.sleep(seconds)
        yield [batch]


def step_seconds(draw: float, compute: float, steps: int) -> list[float]:
    """What each step took, without the first and the last."""
    device = SleepingQueue()
    model = QueuedModel(device, compute)
    damage = DamageCount("web", 1.0)
    trainer = loop.Trainer(
        wrapped=Wrapped(model, model),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        loaders=[StreamLoader("web", slow_steps(draw), 1.0, Position(), lambda: damage)],
        options=Train(mmc4_shards="none", lm_path="none", run_name="none"),
        total_steps=steps,
    )
    read = loop.read

    def wait_and_read(values: Tensor) -> list[float]:
        device.wait()
        return read(values)

    with mock.patch.object(loop, "read", wait_and_read):
        return [trainer.step().seconds for _ in range(steps)][1:-1]


def bench(_folder: Path, *arguments: str) -> list[Gate]:
    """Measure the three runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--milliseconds", type=float, default=40.0, help="of computing a step")
    parser.add_argument("--steps", type=int, default=25)
    told = parser.parse_args(arguments)
    compute = told.milliseconds / 1000
    gates = []
    for ratio in _RATIOS:
        draw = ratio * compute
        taken = median(step_seconds(draw, compute, told.steps))
        longer = max(draw, compute)
        times = [f"{1000 * one:.1f}" for one in (draw, compute, taken, longer, draw + compute)]
        print(
            f"drawing {times[0]} ms, computing {times[1]} ms: a step takes {times[2]} ms "
            f"(the longer: {times[3]}, both: {times[4]})",
            flush=True,
        )
        name = f"a step beyond the longer of drawing ({ratio:g} x computing) and computing"
        gates.append(Gate(name, 100 * (taken / longer - 1), AIM_PERCENT, at_most=True, unit="%"))
    return gates


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    told, rest = parser.parse_known_args()
    print_gates(bench(told.folder, *rest))


if __name__ == "__main__":
    main()
