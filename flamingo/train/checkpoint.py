"""Checkpoints to go on from: a folder a step, whole or not there, `latest` last.

```
RUN/checkpoints/step-00000040/
  model.safetensors   what trains (with the record of what it belongs to in its header)
  fit.json            the same record: LM, tokenizer, shapes, n of the cross-attention
  tokenizer/          its files
  optimizer.pt        AdamW's state and torch's random state (read with weights_only)
  state.json          step, positions of the streams, options
RUN/checkpoints/latest
```
"""

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from flamingo.model.checkpoint_files import WEIGHTS_FILE, write_record, write_weights
from flamingo.model.checkpoint_keys import full_tensor, trainable_state_dict
from flamingo.model.flamingo import Flamingo
from flamingo.parallel.world import World
from mmdata.errors import UserError
from mmdata.storage.atomic import sync_folder, write_atomically

FOLDER = "checkpoints"
LATEST = "latest"
STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.pt"


@dataclass(slots=True)
class RunState:
    """Where a run is.

    Attributes:
        step: optimizer steps taken.
        positions: of each stream, as its own JSON.
        skipped_steps: steps that were not finite, in all.
        options: of the run, as JSON.
        sequence: what decides which samples come in which order, by name.
    """

    step: int = 0
    positions: dict[str, Any] = field(default_factory=dict)
    skipped_steps: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    sequence: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    run: str,
    model: Flamingo,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    *,
    world: World | None = None,
    keep: int | None = None,
) -> str:
    """Write a checkpoint of the run and make it the latest; returns its folder.

    Every rank has to call it: sharded tensors are made whole. The first rank writes.
    """
    world = world or World()
    root = os.path.join(run, FOLDER)
    final = os.path.join(root, f"step-{state.step:08d}")
    weights = trainable_state_dict(model)
    optimizer_state = tree_map_only(torch.Tensor, full_tensor, optimizer.state_dict())
    with world.together():
        if world.is_first:
            _write(final, model, weights, optimizer_state, tokenizer, state)
            if keep is not None:
                _remove_old(root, keep, newest=os.path.basename(final))
    return final


def _write(
    final: str,
    model: Flamingo,
    weights: dict[str, torch.Tensor],
    optimizer_state: dict[str, Any],
    tokenizer: Any,
    state: RunState,
) -> None:
    root = os.path.dirname(final)
    draft = os.path.join(root, f".step-{state.step:08d}.{uuid.uuid4().hex}.tmp")
    record = model.fit.record() if model.fit else None
    os.makedirs(draft)
    try:
        write_weights(os.path.join(draft, WEIGHTS_FILE), weights, record)
        write_record(draft, record or {}, tokenizer)
        torch.save(
            {"optimizer": optimizer_state, "rng": torch.get_rng_state()},
            os.path.join(draft, OPTIMIZER_FILE),
        )
        text = json.dumps(asdict(state), indent=1)
        write_atomically(os.path.join(draft, STATE_FILE), text.encode() + b"\n")
        _sync_tree(draft)
        if os.path.exists(final):
            shutil.rmtree(final)  # of an attempt that got further than its latest
        os.rename(draft, final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(root)
    write_atomically(os.path.join(root, LATEST), os.path.basename(final).encode() + b"\n")


def find_checkpoint(path: str) -> str | None:
    """The checkpoint that a run's folder, or a checkpoint's own, stands for; None if none is."""
    if os.path.isfile(os.path.join(path, STATE_FILE)):
        return path
    latest = os.path.join(path, FOLDER, LATEST)
    if not os.path.isfile(latest):
        return None
    with open(latest, encoding="utf-8") as file:
        folder = os.path.join(path, FOLDER, file.read().strip())
    if not os.path.isfile(os.path.join(folder, STATE_FILE)):
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


def restore_optimizer(
    folder: str, model: Flamingo, optimizer: torch.optim.Optimizer, world: World
) -> None:
    """Put the optimizer and torch's random state back; the weights load when the model is made.

    Every rank has to call it, and takes its part of what is sharded.
    """
    saved = torch.load(os.path.join(folder, OPTIMIZER_FILE), map_location="cpu", weights_only=True)
    if world.is_sharded:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, values in saved["optimizer"]["state"].items():
            for name, value in values.items():
                values[name] = _sharded_like(parameters[number], value)
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])


def _sharded_like(parameter: torch.Tensor, value: Any) -> Any:
    """A whole tensor in the way of its parameter; others (AdamW's step) as they are."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _sync_tree(folder: str) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(parent)


def _remove_old(root: str, keep: int, *, newest: str) -> None:
    """Keep the newest `keep` checkpoints, and the one just written in any case."""
    steps = sorted(name for name in os.listdir(root) if name.startswith("step-"))
    for name in steps[: max(0, len(steps) - keep)]:
        if name != newest:
            shutil.rmtree(os.path.join(root, name))
