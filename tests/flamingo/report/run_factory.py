"""Folders of runs to report on, without training.

make_run(folder, steps=…, ranks=…)   two streams, validation, a resume after a pause, a skipped step
hostile_run(folder)                  every text that a run's files can hold is markup
"""

import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.report_factory import BREAKOUT, CLOSING, SCRIPT

START = 1_790_000_000.0  # s; of the first sample
_PHASES = ("before forward", "after forward", "after backward", "after optimizer")


def make_run(folder: Path, *, steps: int = 600, ranks: int = 2, gpu: bool = True) -> Path:
    """A run that was resumed in the middle and skipped one step."""
    coin = random.Random(7)
    (folder / "telemetry").mkdir(parents=True)
    write(folder / "metrics.jsonl", [_step(number, steps, coin) for number in range(1, steps + 1)])
    measured = range(0, steps + 1, max(1, steps // 6))
    write(folder / "validation.jsonl", [_measured(step, steps) for step in measured])
    middle = steps // 2
    write(
        folder / "events.jsonl",
        [
            {"step": 7, "event": "skipped", "losses": {"web": None}, "gradient_norm": None},
            {"step": middle, "event": "saved", "checkpoint": f"step-{middle:08d}"},
            {"step": middle, "event": "resumed"},
            {"step": steps, "event": "saved", "checkpoint": f"step-{steps:08d}"},
        ],
    )
    write(folder / "memory.jsonl", _memory((0, 1, steps)))
    for rank in range(ranks):
        write(folder / "telemetry" / f"rank-{rank}.jsonl", _samples(rank, steps, coin, gpu=gpu))
    options = {"lm_path": "models/lm", "max_steps": steps, "learning_rate": 1e-4, "pack": False}
    (folder / "options.json").write_text(json.dumps(options))
    return folder


def hostile_run(folder: Path) -> Path:
    """Markup as names of streams, events, phases, categories, boards, options and their values."""
    make_run(folder, steps=12)
    names = {SCRIPT: 2.0, BREAKOUT: 3.0, CLOSING + "\u202egnp.exe": 1.0}
    lines = [{"step": n, "losses": names, "seconds": 1, "tokens": SCRIPT} for n in range(1, 6)]
    lines += [{"step": SCRIPT, "losses": []}, {"step": 6, "losses": BREAKOUT}, {"step": 7}]
    write(folder / "metrics.jsonl", lines)
    write(folder / "validation.jsonl", [{"step": n, "losses": names} for n in (0, 5)])
    write(folder / "events.jsonl", [{"step": 1, "event": SCRIPT, BREAKOUT: CLOSING}])
    write(folder / "memory.jsonl", [{"step": 1, "phase": SCRIPT, "categories": {BREAKOUT: 5e9}}])
    board = {"time": START, "step": 1, "gpu_name": SCRIPT, "gpu": {"power_watts": 300}}
    write(folder / "telemetry" / "rank-0.jsonl", [board, board | {"time": START + 10}])
    (folder / "options.json").write_text(json.dumps({SCRIPT: BREAKOUT, "b": [CLOSING]}))
    return folder


def write(path: Path, lines: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _step(number: int, steps: int, coin: random.Random) -> dict[str, Any]:
    done = number / steps
    seconds = 1.4 + coin.random() * 0.1 + (0.9 if coin.random() < 0.04 else 0.0)
    skipped = number == 7
    line: dict[str, Any] = {
        "step": number,
        "losses": {
            "web": None if skipped else 2.2 + 3 * math.exp(-4 * done) + coin.gauss(0, 0.12),
            "pairs": None if skipped else 2.9 + 4 * math.exp(-6 * done) + coin.gauss(0, 0.25),
        },
        "learning_rate": 1e-4 * min(1.0, number / 50),
        "gradient_norm": None if skipped else math.exp(coin.gauss(0, 0.4)) * (1.5 - done),
        "skipped": skipped,
        "samples": 96,
        "tokens": 40_000,
        "images": 150,
        "wait_seconds": 0.02,
        "seconds": seconds,
    }
    if number % 10 == 0:
        line["interval"] = {
            "tokens_per_second": 40_000 / seconds,
            "samples_per_second_per_gpu": {"web": 16 / seconds, "pairs": 32 / seconds},
            "step_seconds": {"mean": seconds, "p95": seconds * 1.3},
            "data_seconds": {"mean": 0.02, "p95": 0.09},
            "mfu": 0.41 / seconds * 1.4,
            "mfu_with_padding": 0.45 / seconds * 1.4,
        }
    return line


def _measured(step: int, steps: int) -> dict[str, Any]:
    losses = {"held-out": 2.4 + 3 * math.exp(-4 * step / steps)}
    return {
        "step": step,
        "losses": losses,
        "perplexity": {name: math.exp(loss) for name, loss in losses.items()},
    }


def _memory(steps: Iterable[int]) -> list[dict[str, Any]]:
    lines = []
    for step in steps:
        for place, phase in enumerate(_PHASES):
            categories = {
                "parameters": 18.2e9,
                "gradients": 5.4e9 if place >= 2 else 0,
                "optimizer state": 10.8e9,
                "activations": (0, 24e9, 1e9, 0)[place],
                "other": 1.3e9,
            }
            together = sum(categories.values())
            line = {"step": step, "phase": phase, "categories": categories}
            lines.append(line | {"allocated": together, "peak": together * 1.04, "reserved": 66e9})
    return lines


def _samples(rank: int, steps: int, coin: random.Random, *, gpu: bool) -> list[dict[str, Any]]:
    """One every 10 s; an hour of pause in the middle."""
    lines = []
    for place in range(max(4, steps // 7)):
        late = 3600.0 if place >= steps // 14 else 0.0
        line: dict[str, Any] = {"time": START + 10 * place + late, "step": place * 7}
        if rank % 8 == 0:
            line["host"] = {
                "cpu_share": 0.3 + coin.random() * 0.1,
                "rss_bytes": 9.2e9,
                "children_rss_bytes": 2.1e9,
                "memory_share": 0.31,
                "disk_free_bytes": 1.2e12 - place * 1e9,
                "disk_read_bytes_per_second": 240e6 * (1 + coin.random()),
                "disk_write_bytes_per_second": 3e6,
            }
        if gpu:
            hot = 12 if rank == 5 else 0
            line["gpu_name"] = "NVIDIA H100 80GB HBM3"
            line["gpu"] = {
                "utilization": min(1.0, 0.95 + coin.gauss(0, 0.03)),
                "memory_access": 0.42 + coin.gauss(0, 0.03),
                "memory_bytes": 66e9,
                "memory_share": 0.77,
                "sm_clock_mhz": 1755 - 10 * hot + coin.randint(-15, 15),
                "memory_clock_mhz": 2619,
                "power_watts": 620 + coin.gauss(0, 25),
                "power_limit_watts": 700,
                "temperature": 61 + hot + coin.gauss(0, 1.5),
                "ecc_corrected": 2 if rank == 1 and place > 20 else 0,
                "ecc_uncorrected": 0,
            }
        lines.append(line)
    return lines
