"""Checkpoints to go on from: a folder a step, whole or not there, `latest` last.

```
RUN/checkpoints/step-00000040/
  tensors/       what trains, the optimizer's state, torch's random state: a file a rank
  identity.json  what the weights belong to: the family of the model, and its parts
  tokenizer/     its files
  state.json     step, positions of the streams, options, versions
RUN/checkpoints/latest   the name of the newest; `best`, of the lowest validation loss
```

The schedule has no state: the learning rate is a function of the step and the options. All ranks
write at once, each what lies on it, under a temporary name; rank 0 then adds the small files and
renames. Asynchronous saves copy the tensors to host memory first (`staging`; as many bytes again as
trainable weights and optimizer state have there) and write from a thread with a gloo group of its
own, since two threads cannot share the order of one group's collectives. Under DDP all ranks hold
the same tensors: then the first rank of each host copies them, and the others their random state
alone.
"""

import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from flamingo.models.family import TrainableModel
from flamingo.modules.checkpoint_files import write_record
from flamingo.modules.placement import local_part
from flamingo.modules.sharded_files import TENSORS_FOLDER, first_failure, is_sharded
from flamingo.parallel.world import World
from flamingo.train.checkpoint.retention import (
    BEST,
    LATEST,
    SaveRule,
    draft_name,
    publish,
    read_pointer,
    sweep,
)
from flamingo.train.checkpoint.staging import HostCopies, can_be_staged
from flamingo.train.checkpoint.tensors import (
    RANDOM_PREFIX,
    restore_tensors,
    tensors_of,
    trained_parameters,
)
from mmdata.errors import StorageError, UserError
from mmdata.storage.atomic import write_atomically

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
STATE_FILE = "state.json"
_PACKAGES = ("mmdata", "torch", "transformers", "open_clip_torch")


@dataclass(slots=True)
class RunState:
    """Where a run is.

    Attributes:
        step: optimizer steps taken.
        positions: of each stream, as its own JSON.
        skipped_steps: steps that were not finite, in all.
        loss_scale: of fp16-mixed; empty in other precisions.
        options: of the run, as JSON.
        sequence: what decides which samples come in which order, by name.
        validation: loss of each validation stream, where it was measured at this step.
        trained: names of the parameters that the optimizer has.
        world: number of ranks, and how the model was spread over them.
        versions: of Python and of the libraries.
    """

    step: int = 0
    positions: dict[str, Any] = field(default_factory=dict)
    skipped_steps: int = 0
    loss_scale: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    sequence: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    world: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


class Checkpointer:
    """Saves a run as its rule says. Every rank makes one, and calls each method when all do.

    Args:
        run: folder of the run.
        tokenizer: whose files lie beside the weights.
        rule: when to save, and what to keep.
        world: this rank among the others.
        asynchronous: write while training goes on, where the tensors can be copied.
    """

    def __init__(
        self,
        run: str,
        tokenizer: Any,
        rule: SaveRule,
        *,
        world: World | None = None,
        asynchronous: bool = False,
    ) -> None:
        self.rule, self._tokenizer = rule, tokenizer
        self._world, self._asynchronous = world or World(), asynchronous
        self._root = os.path.join(run, FOLDER)
        self._best: float | None = self._world.exchange(self._prepare)[0]
        several = self._world.size > 1
        self._group = dist.new_group(backend="gloo") if several else None
        self._copies = HostCopies()
        self._threads = ThreadPoolExecutor(1, "checkpoint", *_on_own_device(self._world))
        self._pending: Future[None] | None = None
        self._saved: str | None = None
        self._last_step: int | None = None

    def is_due(self, step: int, losses: dict[str, float]) -> bool:
        """Whether to save after this step, at which these validation losses were measured."""
        return self.rule.is_due(step) or self.rule.is_better(losses, self._best)

    def save(
        self, model: TrainableModel, optimizer: torch.optim.Optimizer, state: RunState
    ) -> None:
        """Save, unless this step is saved already; an earlier save is waited for first.

        Raises:
            StorageError: this save, or the one before, cannot be written.
        """
        self.wait()
        if state.step == self._last_step:
            return
        state = dataclasses.replace(
            state,
            trained=sorted(trained_parameters(model, optimizer)),
            world={"size": self._world.size, "parallel": self._world.parallel},
            versions=_versions(),
        )
        draft = os.path.join(self._root, self._world.gather(draft_name(state.step))[0])
        is_best = self.rule.is_better(state.validation, self._best)
        if is_best:
            self._best = state.validation[str(self.rule.keep_best)]
        record = model.identity()
        tensors = tensors_of(model, optimizer, self._world)
        if self._asynchronous and not can_be_staged(tensors.values()):
            logger.warning("this optimizer's state cannot be copied: training waits for each save")
            self._asynchronous = False
        if self._asynchronous:
            tensors = self._copies.fill(self._own_share(tensors))
            self._pending = self._threads.submit(
                self._write, draft, tensors, state, record, is_best=is_best
            )
        else:
            with self._world.together():
                self._write(draft, tensors, state, record, is_best=is_best)
        self._last_step = state.step

    @property
    def has_failed(self) -> bool:
        """Whether a save in the background has ended with an error on this rank; never waits."""
        pending = self._pending
        return pending is not None and pending.done() and pending.exception() is not None

    def wait(self) -> None:
        """Until the save in the background, if there is one, is complete on all ranks.

        Raises:
            StorageError: it cannot be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._world.together():
                pending.result()

    def close(self) -> str | None:
        """Wait for the last save; returns its folder, None if none was.

        Before the process group goes: a rank that ends while its thread still speaks to the others
        aborts.
        """
        self.wait()
        self._threads.shutdown()
        saved: str | None = self._world.gather(self._saved)[0]  # also a barrier
        if self._group is not None:
            dist.destroy_process_group(self._group)
        return saved

    def abandon(self) -> None:
        """End without waiting for other ranks, after an error: a save that is under way completes
        where it still can."""
        self._threads.shutdown()
        error = self._pending.exception() if self._pending is not None else None
        if error is not None:
            logger.error("the checkpoint of step %s was not saved: %s", self._last_step, error)

    def _prepare(self) -> float | None:
        """Make room, on the first rank; returns the best loss so far."""
        if not self._world.is_first:
            return None
        os.makedirs(self._root, exist_ok=True)
        sweep(self._root)
        stream, name = self.rule.keep_best, read_pointer(self._root, BEST)
        if stream is None or name is None:
            return None
        return read_state(os.path.join(self._root, name)).validation.get(stream)

    def _own_share(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What this rank copies and writes of the tensors that it holds."""
        if self._world.parallel != "ddp" or self._world.local_rank == 0:
            return tensors
        return {name: one for name, one in tensors.items() if name.startswith(RANDOM_PREFIX)}

    def _write(
        self,
        draft: str,
        tensors: dict[str, Tensor],
        state: RunState,
        record: dict[str, Any],
        *,
        is_best: bool,
    ) -> None:
        try:
            self._copies.wait()
            self._write_tensors(os.path.join(draft, TENSORS_FOLDER), tensors)
            if self._world.is_first:
                write_record(draft, record, self._tokenizer)
                text = json.dumps(asdict(state), indent=1)
                write_atomically(os.path.join(draft, STATE_FILE), text.encode() + b"\n")
                self._saved = publish(
                    self._root, draft, step=state.step, is_best=is_best, rule=self.rule
                )
        except (CheckpointException, OSError) as error:
            self._discard(draft)
            reason = error.strerror if isinstance(error, OSError) else first_failure(error)
            raise StorageError(
                f"checkpoint {draft}: cannot be written: {reason}; the one before it is whole, "
                "and the same command goes on from there"
            ) from error
        except BaseException:
            self._discard(draft)
            raise

    def _discard(self, draft: str) -> None:
        if self._world.is_first:
            shutil.rmtree(draft, ignore_errors=True)  # where that fails the next run sweeps

    def _write_tensors(self, folder: str, tensors: dict[str, Tensor]) -> None:
        ahead: dict[str, Any] = {}
        if all(local_part(one).device.type == "cpu" for one in tensors.values()):
            # Nothing has to come from a GPU: else torch waits for its stream every 10 MB.
            ahead["per_thread_copy_ahead"] = 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            save(
                dict(tensors),
                storage_writer=FileSystemWriter(folder, **ahead),
                process_group=self._group,
                no_dist=self._group is None,
            )


def find_checkpoint(path: str) -> str | None:
    """The checkpoint that a run's folder, or a checkpoint's own, stands for; None if none is."""
    if os.path.isfile(os.path.join(path, STATE_FILE)):
        return path
    root = os.path.join(path, FOLDER)
    name = read_pointer(root, LATEST)
    if name is None:
        return None
    folder = os.path.join(root, name)
    if not os.path.isfile(os.path.join(folder, STATE_FILE)):
        latest = os.path.join(root, LATEST)
        raise UserError(f"{latest}: names {folder}, which is no checkpoint; mend or remove it")
    return folder


def read_state(folder: str) -> RunState:
    """Where the run was when the checkpoint was written."""
    path = os.path.join(folder, STATE_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return RunState(**json.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a state of this version: {error}") from error


def restore(
    folder: str, model: TrainableModel, optimizer: torch.optim.Optimizer, world: World | None = None
) -> None:
    """Put weights, optimizer and random state back; each rank reads its own part.

    The ranks that wrote it, and how the model was spread over them, may have been others.

    Raises:
        UserError: names or shapes are not those of this model and optimizer.
        BadInputError: a file is missing or damaged.
    """
    if not is_sharded(folder):
        raise UserError(
            f"checkpoint {folder}: holds no {TENSORS_FOLDER}/ (an earlier version wrote it): its "
            "optimizer state cannot be read; start another --run-name from it by --init-from"
        )
    trained = read_state(folder).trained
    restore_tensors(folder, model, optimizer, world or World(), trained)


def _on_own_device(world: World) -> tuple[Callable[..., None], tuple[int]] | tuple[()]:
    """How a thread of this rank begins: on its GPU, since each thread starts on the first one."""
    if world.device.type != "cuda":
        return ()
    return torch.cuda.set_device, (torch.cuda.current_device(),)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from its sources, or without the extra that brings it
    return found
