"""What two workers are worth: CPU seconds an image, wall time, and what starting Ray costs.

    python -m benchmarks.workers [--docs 2000] [--runs 5] [--folder .bench]

One and two Ray workers convert the corpus by turns (`--workers 1`, `--workers 2`), each run a
command of its own. CPU seconds are those of the whole family of processes from start to end:
driver, raylet, GCS, Ray's agents, workers. Wall time is that of the work, from the first record
taken to the last shard committed, best of the runs. Starting Ray has a gate of its own: from asking
for it to the first result of a first task, best of three. Shown beside: the wall with Ray's start
and end, and the same conversion in one process without Ray.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.convert import DOCS_PER_SHARD, ready_corpus
from benchmarks.gates import Gate, print_gates
from benchmarks.processes import Family, watch
from pipelines.conversion import run as convert
from pipelines.conversion import run_plan
from pipelines.conversion.unit import convert_unit
from pipelines.engine.events import Tick
from pipelines.engine.run_units import run_units
from pipelines.mmc4.options import ConvertMmc4
from pipelines.mmc4.run import convert_mmc4

#: CPU seconds an image with two workers, in those with one.
AIM_CPU = 1.1
AIM_WALL = 1.75
AIM_START_SECONDS = 6.0
START_RUNS = 3


def announced(task: Any) -> Iterator[Any]:
    """A unit's work, with an event before its first record."""
    yield Tick(0, 0, 0, 0)
    yield from convert_unit(task)


def _work_seconds(corpus: Path, out: Path, workers: int) -> dict[str, float]:
    """Convert, and time what goes on between the first event and the last."""
    times: list[float] = []

    def timed(*arguments: Any, **options: Any) -> Iterator[Any]:
        for event in run_units(*arguments, **options):
            times.append(time.perf_counter())
            yield event

    run_plan.run_units, convert.convert_unit = timed, announced
    options = ConvertMmc4(
        docs=(str(corpus),),
        images=str(corpus / "images"),
        output=str(out),
        docs_per_shard=DOCS_PER_SHARD,
        workers=workers,
    )
    result = convert_mmc4(options, quiet=True)
    if not result.complete:
        raise SystemExit(f"the conversion did not complete: {result.failures}")
    return {"images": result.tally.images, "work_seconds": times[-1] - times[0]}


def start_seconds() -> float:
    """From asking for Ray to the first result of a first task, in this process."""
    start = time.perf_counter()
    for _ in run_units(iter, [[0]], workers=2):
        return time.perf_counter() - start
    raise SystemExit("a task without a result")


def _apart(corpus: Path, workers: int) -> tuple[Family, dict[str, float]]:
    """A conversion by a process of its own."""
    out = corpus.parent / "output"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.workers", "--measure", str(workers)]
    family = watch([*command, "--corpus", str(corpus), "--out", str(out)])
    shutil.rmtree(out)
    return family, json.loads(family.output.splitlines()[-1])


def bench(folder: Path, docs: int = 2000, runs: int = 5) -> list[Gate]:
    """Measure, and print the table."""
    corpus = ready_corpus(folder, docs)
    cpu: dict[int, list[float]] = {0: [], 1: [], 2: []}
    work: dict[int, list[float]] = {0: [], 1: [], 2: []}
    wall: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for run in range(runs):
        # By turns, and the order turned round, so that neither always comes after the other.
        for workers in (*([0] if not run else []), *((1, 2) if run % 2 else (2, 1))):
            family, figures = _apart(corpus, workers)
            cpu[workers].append(1e3 * family.cpu_seconds / figures["images"])
            work[workers].append(figures["work_seconds"])
            wall[workers].append(family.seconds)
            print(
                f"  {workers} workers: {cpu[workers][-1]:.2f} ms CPU an image, work "
                f"{work[workers][-1]:.1f} s, all {wall[workers][-1]:.1f} s",
                flush=True,
            )
    print(f"\n{'workers':<10}{'CPU ms/image':>14}{'work s':>10}{'all s':>10}   best walls")
    for workers in cpu:
        best = f"{min(work[workers]):>10.1f}{min(wall[workers]):>10.1f}"
        label = workers or "no Ray"
        print(f"{label:<10}{median(cpu[workers]):>14.2f}{best}")
    ratios = [two / one for one, two in zip(cpu[1], cpu[2], strict=True)]
    command = [sys.executable, "-m", "benchmarks.workers", "--measure", "start"]
    started = min(float(watch(command).output.splitlines()[-1]) for _ in range(START_RUNS))
    return [
        Gate("two workers, CPU an image in those of one", median(ratios), AIM_CPU, at_most=True),
        Gate("two workers, wall of the work, times as fast", min(work[1]) / min(work[2]), AIM_WALL),
        Gate("Ray's start and a first task", started, AIM_START_SECONDS, at_most=True, unit=" s"),
    ]


def main() -> None:
    """The command line: the table, or (in a process of its own) one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5, help="of each, by turns")
    parser.add_argument(
        "--folder", type=Path, default=Path(os.environ.get("MMDATA_BENCH_DIR", ".bench"))
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "start":
        print(start_seconds())
    elif options.measure:
        print(json.dumps(_work_seconds(options.corpus, options.out, int(options.measure))))
    else:
        print_gates(bench(options.folder.resolve(), options.docs, options.runs))


if __name__ == "__main__":
    main()
