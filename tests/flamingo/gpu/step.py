"""A tiny training run on the pretended GPU, and what its last step did there.

    python -m tests.flamingo.gpu.step [--steps 2] [--most 30] [--captions] [OPTION …]

An OPTION is any of `mmdata train`, as `--precision bf16-mixed --pack --parallel fsdp`; models and
shards are made, tiny ones, in a temporary folder. Printed are the losses, and for the last step:
operations that mix devices, reads from the device, copies and operations for which the host waits
(each with the line that asked for it), calls of attention by kind, kernels and bytes by operation.
With a C compiler backward passes run too; without one gradients are made up.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from flamingo.launch import run
from flamingo.models.flamingo.options import Train
from flamingo.telemetry.steps import StepReport
from flamingo.train.loop import Trainer
from tests.flamingo.gpu import Watch, has_shim, pretended_gpu, shim
from tests.flamingo.gpu.stand_ins import on_the_host

#: Values are computed on the CPU, in bf16 slowly.
SMALL = {"batch_size_mmc4": 2, "batch_size_laion": 2, "mmc4_max_tokens": 32, "pack_tokens": 64,
         "mmc4_max_num_images": 2}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CountedRun:
    """A run, and what its last step did.

    Attributes:
        result: of the run.
        watch: of the last step alone.
    """

    result: run.TrainResult
    watch: Watch


def counted_run(options: Train, *, saves: bool = True, tries: bool = True) -> CountedRun:
    """Train on the pretended GPU as the options say; `device` is to be `cuda`.

    Args:
        options: of the run.
        saves: whether it writes checkpoints; models that are spread over ranks cannot.
        tries: whether the largest batch is tried before the first step.
    """
    watch = Watch()
    step = Trainer.step
    kept: dict[str, Counter[str]] = {}

    def counted(trainer: Trainer) -> StepReport:
        watch.clear()
        report = step(trainer)
        kept.update({name: counter.copy() for name, counter in watch.counters.items()})
        return report

    saves = saves and options.parallel in ("auto", "none", "ddp")
    with ExitStack() as stack:
        stack.enter_context(pretended_gpu(watch))
        stack.enter_context(on_the_host(saves=saves))
        stack.enter_context(mock.patch.object(Trainer, "step", counted))
        if not tries:
            stack.enter_context(mock.patch.object(run, "watched_preflight"))
        result = run.train(options)
    for name, counter in kept.items():
        setattr(watch, name, counter)
    return CountedRun(result, watch)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="all other options are those of mmdata train"
    )
    parser.add_argument("--steps", type=int, default=2, help="of the run; the last one is counted")
    parser.add_argument("--most", type=int, default=30, help="lines of each kind")
    parser.add_argument("--captions", action="store_true", help="train on pairs as well")
    chosen, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        if not has_shim() and shim.find_compiler():
            return shim.rerun(Path(folder), [sys.executable, "-m", __spec__.name, *sys.argv[1:]])
        return _run(Path(folder), chosen, words)


def _run(folder: Path, chosen: argparse.Namespace, words: list[str]) -> int:
    from mmdata.cli.arguments import read_arguments
    from tests.flamingo.conftest import make_world, options_of_a_run

    given = read_arguments("train", Train, words)
    world = make_world(folder / "world")
    fixed: dict[str, Any] = {"device": "cuda", "max_steps": chosen.steps, "workers": 0} | SMALL
    if chosen.captions:
        fixed["laion_shards"] = str(world.captions)
    options = options_of_a_run(world, folder / "run", **(fixed | given))
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        counted = counted_run(options)
    out = sys.stdout.write
    if not has_shim():
        out("no C compiler: gradients are made up, no backward pass is seen\n")
    for name, (first, last) in counted.result.losses.items():
        out(f"{name}: loss {first} -> {last}\n")
    told = " ".join(words) or "no options"
    out(f"step {chosen.steps}, of {told}:\n{counted.watch.report(chosen.most)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
