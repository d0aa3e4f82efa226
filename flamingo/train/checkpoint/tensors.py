"""The tensors of a checkpoint: what a run holds, by names that no way of spreading it changes.

`model.<parameter>` is what a checkpoint keeps of the model, `optimizer.<parameter>.<slot>` the
optimizer's state of it, `random.<rank>.cpu` and `.cuda` torch's generators. Under DDP each rank
holds them whole, under FSDP2 they are DTensors; torch.distributed.checkpoint writes the same
folder from both and gives each rank its shards back, at any world size.

The generators of a rank go back to the same rank. A rank that the saving run did not have keeps
its seed's: order, coins and initial values are functions of the seed and never draw from them, so
only a dropout in adapters would differ.
"""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from flamingo.models.family import TrainableModel
from flamingo.modules.sharded_files import WEIGHTS_PREFIX, fill_tensors, tensors_in
from flamingo.parallel.world import World
from flamingo.train.optim import plain_state, settle
from mmdata.errors import UserError

OPTIMIZER_PREFIX = "optimizer."
RANDOM_PREFIX = "random."


def tensors_of(
    model: TrainableModel, optimizer: torch.optim.Optimizer, world: World
) -> dict[str, Tensor]:
    """All tensors to save, as they lie on this rank; they share memory with the run's."""
    found = _kept_tensors(model)
    for name, parameter in trained_parameters(model, optimizer).items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{OPTIMIZER_PREFIX}{name}.{slot}"] = plain_state(value)
            elif value is not None:  # SGD without momentum has None
                kind = type(value).__name__
                raise TypeError(f"optimizer state {slot} of {name}: a tensor was expected: {kind}")
    return found | _random_state(world)


def trained_parameters(
    model: TrainableModel, optimizer: torch.optim.Optimizer
) -> dict[str, nn.Parameter]:
    """The optimizer's parameters by their names in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def restore_tensors(
    folder: str,
    model: TrainableModel,
    optimizer: torch.optim.Optimizer,
    world: World,
    trained: Collection[str],
) -> None:
    """Put weights, optimizer state and random state back from a checkpoint, in place.

    Args:
        folder: of the checkpoint.
        model: with its parameters where they will be; what does not train is left as it is.
        optimizer: over them, without state.
        world: this rank among the others.
        trained: names of the parameters that trained when it was written.

    Raises:
        UserError: names or shapes are not those of this model.
        BadInputError: a file is missing or damaged.
    """
    there = {name: tuple(one.size) for name, one in tensors_in(folder).items()}
    weights = _kept_tensors(model)
    _expect_names(folder, "parts of the model", there, WEIGHTS_PREFIX, weights)
    parameters = trained_parameters(model, optimizer)
    _expect_same(folder, "trained parameters", trained, parameters)
    slots = _empty_slots(there, parameters)
    _expect_names(folder, "optimizer states", there, OPTIMIZER_PREFIX, slots)
    random = {name: value for name, value in _random_state(world).items() if name in there}
    wanted = weights | slots | random
    for name, value in wanted.items():
        if tuple(value.shape) != there[name]:
            raise UserError(
                f"checkpoint {folder}: {name}: expected {tuple(value.shape)}, got {there[name]}"
            )
    fill_tensors(folder, wanted)
    _fill_optimizer(optimizer, parameters, slots)
    settle(optimizer)
    if (name := f"{RANDOM_PREFIX}{world.rank}.cpu") in random:
        torch.set_rng_state(random[name])
    if (name := f"{RANDOM_PREFIX}{world.rank}.cuda") in random:
        torch.cuda.set_rng_state(random[name], world.device)


def _kept_tensors(model: TrainableModel) -> dict[str, Tensor]:
    """What a checkpoint keeps of the model, as it lies here; the memory is the model's."""
    values = model.state_dict()
    return {WEIGHTS_PREFIX + name: values[name] for name in model.kept_names()}


def _random_state(world: World) -> dict[str, Tensor]:
    found = {f"{RANDOM_PREFIX}{world.rank}.cpu": torch.get_rng_state()}
    if world.device.type == "cuda":
        found[f"{RANDOM_PREFIX}{world.rank}.cuda"] = torch.cuda.get_rng_state(world.device)
    return found


def _empty_slots(
    there: dict[str, tuple[int, ...]], parameters: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Room for the state of each parameter: spread as the parameter is where the shapes agree."""
    found: dict[str, Tensor] = {}
    for name, shape in there.items():
        owner, _, _ = name.removeprefix(OPTIMIZER_PREFIX).rpartition(".")
        if not name.startswith(OPTIMIZER_PREFIX) or owner not in parameters:
            continue
        parameter = parameters[owner]
        if shape == tuple(parameter.shape):
            found[name] = torch.zeros_like(parameter, requires_grad=False)
        else:
            found[name] = torch.zeros(shape)  # a counter of steps
    return found


def _fill_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    slots: dict[str, Tensor],
) -> None:
    on_device = {
        id(parameter): bool(group.get("fused") or group.get("capturable"))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter in parameters.values():
        optimizer.state[parameter].clear()
    for name, value in slots.items():
        owner, _, slot = name.removeprefix(OPTIMIZER_PREFIX).rpartition(".")
        parameter = parameters[owner]
        if slot == "step" and on_device[id(parameter)]:
            value = value.to(parameter.device)  # where a fused optimizer counts
        optimizer.state[parameter][slot] = value


def _expect_names(
    folder: str, what: str, there: Iterable[str], prefix: str, wanted: Iterable[str]
) -> None:
    saved = [name.removeprefix(prefix) for name in there if name.startswith(prefix)]
    _expect_same(folder, what, saved, [name.removeprefix(prefix) for name in wanted])


def _expect_same(folder: str, what: str, saved: Iterable[str], wanted: Iterable[str]) -> None:
    """A load fills what it is asked for and is silent about the rest: compare the names."""
    has, needs = set(saved), set(wanted)
    if has == needs:
        return
    told = [
        f"{label} {', '.join(sorted(names)[:3])}{', …' if len(names) > 3 else ''}"
        for label, names in (("lacks", needs - has), ("has besides", has - needs))
        if names
    ]
    raise UserError(
        f"checkpoint {folder}: {what}: expected {len(needs)}, got {len(has)}: {'; '.join(told)}; "
        "go on with the options that it was written with, or take its weights by --init-from"
    )
