"""Time and memory of the loss over a large vocabulary: all logits at once, and by each kernel.

    python -m benchmarks.head_loss [--targets 8192] [--width 256] [--words 50000] [--repeats 3]

Forward and backward of the loss alone, on the CPU, with a frozen head and two rows of our own that
train. Ways take turns, and of each the fastest counts. Memory is counted on tensors without values:
the most that is alive beside what is given, so of torch's own without what it makes inside.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from flamingo.memory.live import LiveMemory
from flamingo.modules.chunked_loss import ReplacedRows, chunked_loss
from flamingo.modules.head_loss import _load

Loss = Callable[[Tensor, Tensor, Tensor | None, Tensor, ReplacedRows | None], Tensor]


def plain_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, own: ReplacedRows | None
) -> Tensor:
    """From all logits, as a head and the hooks of the media tokens make them."""
    logits = F.linear(hidden, weight, bias)
    if own is not None:
        first = torch.arange(len(own.ids), device=hidden.device) + own.ids[0]
        logits.index_copy_(-1, first, F.linear(hidden, own.rows))
    return F.cross_entropy(logits, targets, reduction="sum")


def given(
    targets: int, width: int, words: int
) -> tuple[Tensor, Tensor, None, Tensor, ReplacedRows]:
    """Arguments of a loss; the last two words have rows of our own."""
    hidden = torch.randn(targets, width, requires_grad=True)
    rows = torch.randn(2, width, requires_grad=True)
    own = ReplacedRows((words - 2, words - 1), rows)
    return hidden, torch.randn(words, width) * 0.05, None, torch.randint(words, (targets,)), own


def peak(loss: Loss, *size: int) -> int:
    """Bytes."""
    with FakeTensorMode():
        inputs = given(*size)
        with (live := LiveMemory()):
            live.ignore([inputs[0], inputs[1], inputs[3], inputs[4].rows])
            loss(*inputs).backward()
        return live.peak.total()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name, default in (("targets", 8192), ("width", 256), ("words", 50_000), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    size = (chosen.targets, chosen.width, chosen.words)
    ways: dict[str, Loss] = {"plain": plain_loss, "chunked": chunked_loss, "torch": _load("torch")}
    inputs = given(*size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(chosen.repeats):
        for name, loss in ways.items():
            start = time.perf_counter()
            loss(*inputs).backward()
            seconds[name].append(time.perf_counter() - start)
    print(f"{size[0]} targets, width {size[1]}, {size[2]} words, float32, on the CPU")
    for name, loss in ways.items():
        ratio = min(seconds[name]) / min(seconds["plain"])
        print(
            f"{name:8} {min(seconds[name]):8.2f} s  {ratio:5.2f} x plain"
            f"  {peak(loss, *size) / 1e9:8.3f} GB at most"
        )


if __name__ == "__main__":
    main()
