"""Which checkpoints of a run are written and which stay; names and steps alone, no tensors.

What `latest` or `best` names is never removed, nor is a checkpoint of a later step than the one
just written: whoever went on from an earlier one may still want those.
"""

import math
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mmdata.storage.atomic import sync_folder, sync_tree, write_atomically

LATEST = "latest"
BEST = "best"
DRAFT_SUFFIX = ".tmp"

#: A second checkpoint of a step, while the first one is still named, has a number behind it.
_NAME = re.compile(r"step-(\d{8,})(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRule:
    """When to save, and what to keep.

    Attributes:
        every_steps: save each so many optimizer steps.
        every_epoch_steps: likewise; the steps of the epochs between saves.
        keep_last: how many of the newest stay; None: all.
        keep_every: those at a multiple of so many steps stay as well.
        keep_best: validation stream whose lowest loss is saved, named `best`, and stays.
    """

    every_steps: int | None = None
    every_epoch_steps: int | None = None
    keep_last: int | None = None
    keep_every: int | None = None
    keep_best: str | None = None

    def is_due(self, step: int) -> bool:
        """Whether the number of steps alone asks for a save."""
        periods = (self.every_steps, self.every_epoch_steps)
        return any(period and step % period == 0 for period in periods)

    def is_better(self, losses: Mapping[str, float], best: float | None) -> bool:
        """Whether losses measured at a step beat the best one so far (None: there is none)."""
        loss = losses.get(self.keep_best) if self.keep_best is not None else None
        return loss is not None and math.isfinite(loss) and (best is None or loss < best)

    def to_remove(self, names: Iterable[str], *, step: int, named: Collection[str]) -> list[str]:
        """The checkpoints that go, now that the one of this step is complete."""
        if self.keep_last is None:
            return []
        by_step = sorted(
            ((at, name) for name in names if (at := step_of(name)) is not None and at <= step),
            reverse=True,
        )
        return [
            name
            for at, name in by_step[self.keep_last :]
            if name not in named and not (self.keep_every and at % self.keep_every == 0)
        ]


def step_of(name: str) -> int | None:
    """The step that a checkpoint's folder is of; None if it is none."""
    match = _NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def draft_name(step: int) -> str:
    """A name for a checkpoint in the making; another one each time."""
    return f"step-{step:08d}.{uuid.uuid4().hex}{DRAFT_SUFFIX}"


def read_pointer(root: str, name: str) -> str | None:
    """What `latest` or `best` names; None where it is not there."""
    try:
        with open(os.path.join(root, name), encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def publish(root: str, draft: str, *, step: int, is_best: bool, rule: SaveRule) -> str:
    """Give a complete draft its name, make it the latest, remove what does not stay.

    A crash at any point leaves `latest` and `best` at whole checkpoints: nothing that they name is
    replaced, and they move before anything goes.

    Returns:
        The checkpoint's folder.
    """
    sync_tree(draft)
    final = _free_name(root, step)
    os.rename(draft, os.path.join(root, final))
    sync_folder(root)
    for pointer in (BEST, LATEST) if is_best else (LATEST,):
        write_atomically(os.path.join(root, pointer), final.encode() + b"\n")
    for name in rule.to_remove(os.listdir(root), step=step, named=_named(root)):
        _remove(root, name)
    return os.path.join(root, final)


def sweep(root: str) -> None:
    """Remove what a run that was killed left half-written or half-removed."""
    for name in os.listdir(root):
        if name.startswith("step-") and name.endswith(DRAFT_SUFFIX):
            shutil.rmtree(os.path.join(root, name))


def _named(root: str) -> set[str]:
    return {name for pointer in (LATEST, BEST) if (name := read_pointer(root, pointer))}


def _free_name(root: str, step: int) -> str:
    """The step's name; an earlier checkpoint of the same step makes room unless it is named."""
    name, number, named = f"step-{step:08d}", 1, _named(root)
    while name in named:
        number += 1
        name = f"step-{step:08d}.{number}"
    if os.path.exists(os.path.join(root, name)):
        _remove(root, name)
    return name


def _remove(root: str, name: str) -> None:
    """Under a draft's name first: half a checkpoint never has a whole one's."""
    gone = os.path.join(root, f"{name}.{uuid.uuid4().hex}{DRAFT_SUFFIX}")
    os.rename(os.path.join(root, name), gone)
    shutil.rmtree(gone)
