"""`mmdata recipes --compare A B`: two runs of some steps, side by side.

Each is `mmdata train --config FILE` in a process of its own, one after the other, so that none
feels what the other left in memory; the file and the run stay under the folder that is named. What
is shown are the runs' own records: `metrics.jsonl`, and `memory.jsonl` of the first two steps. The
first step, which loads and compiles, is not timed.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from flamingo.memory.estimate import GB
from flamingo.models.registry import options_of
from flamingo.recipes.catalogue import Read, recipe_path
from flamingo.telemetry.jsonl import read_log
from flamingo.telemetry.losses import MeanLoss, end_losses_of
from flamingo.telemetry.names import MEMORY_NAME, METRICS_NAME
from mmdata.errors import MMDataError, UserError
from mmdata.wording import plural

_LABEL, _WIDTH = 34, 22
_MB = 1e6


class ComparedRunError(MMDataError):
    """One of the two runs did not finish; it has said why."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run's records say.

    Attributes:
        name: of the recipe.
        steps: that were taken.
        seconds: of a step, the median without the first.
        samples_per_second: the same.
        losses: of each stream at the start and at the end.
        memory: bytes by category, the most at any moment that was measured.
        peak: bytes, of the GPU or of the process.
        of: which of these.
    """

    name: str
    steps: int
    seconds: float
    samples_per_second: float
    losses: dict[str, tuple[MeanLoss, MeanLoss]]
    memory: dict[str, int]
    peak: int
    of: str


def compare_recipes(
    names: tuple[str, str], read: Read, changes: Sequence[str], *, folder: str, steps: int
) -> str:
    """Train with both; returns the table.

    Args:
        names: of the recipes, two of them.
        read: of a recipe's file.
        changes: `option=value`, of both runs.
        folder: of the runs; nothing may be there under their names.
        steps: of each run.

    Raises:
        UserError: an option does not fit, or a run is there already.
        ComparedRunError: a run did not finish.
    """
    if names[0] == names[1]:
        raise UserError(f"--compare {names[0]} {names[1]}: expected two different recipes")
    configs = [
        write_config(name, read, changes, folder=Path(folder), steps=steps) for name in names
    ]
    outcomes = []
    for name, config in zip(names, configs, strict=True):
        command = [sys.executable, "-m", "mmdata.cli", "train", "--config", str(config)]
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise ComparedRunError(f"recipe {name}: the run ended with exit code {done.returncode}")
        outcomes.append(outcome_of(name, Path(folder) / name))
    return table(outcomes)


def write_config(
    name: str, read: Read, changes: Sequence[str], *, folder: Path, steps: int
) -> Path:
    """The file of a run of so many steps: the recipe, what is changed, and a folder of its own.

    The warm-up goes where it would outlast the run. Errors as `compare_recipes`.
    """
    values = read(str(recipe_path(name)), changes)
    run = folder / name
    if run.exists():
        raise UserError(f"{run}: a run is there already; give another --run-name")
    values |= {"run_name": str(run), "max_steps": steps}
    if values.get("warmup_steps", 0) >= steps:
        values["warmup_steps"] = 0
    options_of(values)  # what does not go together is said before the first run
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_bytes(msgspec.yaml.encode(values))
    return path


def outcome_of(name: str, run: Path) -> RunOutcome:
    """From the folder of a run."""
    lines = read_log(str(run / METRICS_NAME))
    timed = lines[1:] or lines
    seconds = median(line["seconds"] for line in timed)
    moments = read_log(str(run / MEMORY_NAME))
    memory: dict[str, int] = {}
    for moment in moments:
        for category, number in moment["categories"].items():
            memory[category] = max(number, memory.get(category, 0))
    return RunOutcome(
        name=name,
        steps=len(lines),
        seconds=seconds,
        samples_per_second=median(line["samples"] / line["seconds"] for line in timed),
        losses=end_losses_of(lines),
        memory=memory,
        peak=max(moment["peak"] for moment in moments),
        of=moments[-1]["of"],
    )


def table(outcomes: Sequence[RunOutcome]) -> str:
    """Time, memory by category and loss, a column a run."""
    rows: list[tuple[str, list[str]]] = [
        ("", [one.name for one in outcomes]),
        ("steps", [str(one.steps) for one in outcomes]),
        ("seconds of a step (median)", [f"{one.seconds:.3f}" for one in outcomes]),
        ("samples/s", [f"{one.samples_per_second:.1f}" for one in outcomes]),
    ]
    for category in _keys([one.memory for one in outcomes]):
        found = [_size(one.memory.get(category, 0)) for one in outcomes]
        rows.append((f"memory: {category}", found))
    rows.append((f"memory: peak of the {outcomes[0].of}", [_size(one.peak) for one in outcomes]))
    for stream in _keys([one.losses for one in outcomes]):
        told = [_ends(one.losses, stream) for one in outcomes]
        ends = next(one.losses[stream] for one in outcomes if stream in one.losses)
        steps = plural(ends[1].num_steps, "step")
        rows.append((f"loss: {stream}, first -> last {steps}", told))
    return "".join(
        f"{label:<{_LABEL}}{''.join(f'{cell:>{_WIDTH}}' for cell in cells)}\n"
        for label, cells in rows
    )


def _keys(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all mappings, each once, in the order in which they come."""
    return list(dict.fromkeys(key for one in mappings for key in one))


def _size(num_bytes: int) -> str:
    unit, name = (GB, "GB") if num_bytes >= GB else (_MB, "MB")
    return f"{num_bytes / unit:.2f} {name}"


def _ends(losses: Mapping[str, tuple[MeanLoss, MeanLoss]], stream: str) -> str:
    first, last = (f"{end.loss:.4f}" for end in losses[stream]) if stream in losses else "--"
    return f"{first} -> {last}"
