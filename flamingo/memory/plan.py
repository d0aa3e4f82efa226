"""Memory that follows from the model and the ranks: parameters, gradients, optimizer, buffers.

Counted from the parameters of a real model, which may be on the meta device: what trains, in which
type, and how a rank's rows come out. So adapters, frozen parts and stored types need no rule here.
Sharded parameters are cut as FSDP2 cuts them, by rows and with padding; what is counted is the
first rank, which holds most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from flamingo.models.family import TrainableModel
from flamingo.modules.quantised import is_quantised, stored_bytes
from flamingo.options.run import RunOptions
from flamingo.parallel.world import Parallel

OptimizerKind = Literal["adamw", "adamw8bit", "sgd"]
#: torchao keeps the state of a smaller tensor, and of one that blocks do not divide, as it was.
_QUANTIZED_AT_LEAST, _BLOCK = 4096, 256
_SCALE_BYTES, _CODE_BYTES = 4, 256 * 4
_STEP_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model lies on the ranks.

    Attributes:
        parallel: as in a `World`.
        ranks: of the run.
        shards: ranks that share one copy of the model.
    """

    parallel: Parallel = "none"
    ranks: int = 1
    shards: int = 1

    @classmethod
    def of(cls, parallel: str, ranks: int, shards: int | None) -> "Layout":
        """The layout of a run.

        Args:
            parallel: as --parallel says.
            ranks: of the run.
            shards: ranks that share one copy of the model, with hsdp; None for all.
        """
        if parallel == "fsdp":
            return cls("fsdp", ranks, ranks)
        if parallel == "hsdp":
            return cls("hsdp", ranks, shards or ranks)
        return cls("none" if ranks == 1 else "ddp", ranks, 1)

    @property
    def is_sharded(self) -> bool:
        """Whether a rank holds rows of its parameters."""
        return self.parallel in ("fsdp", "hsdp")

    def elements(self, parameter: Tensor) -> int:
        """Numbers of a parameter that the first rank holds."""
        if not self.is_sharded or not parameter.dim():
            return parameter.numel()
        rows = -(-parameter.shape[0] // self.shards)
        return rows * (parameter.numel() // max(1, parameter.shape[0]))

    def bytes(self, parameter: Tensor) -> int:
        """Bytes of a parameter that the first rank holds."""
        if is_quantised(parameter):  # its element size is that of the numbers it stands for
            return stored_bytes(parameter) * self.elements(parameter) // parameter.numel()
        return self.elements(parameter) * parameter.element_size()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Bytes on a rank that no batch changes.

    Attributes:
        parameters: frozen ones included.
        buffers: tables and masks of the model; every rank has them whole.
        gradients: of all that trains, as they are at the end of a backward pass.
        optimizer: its state, on the device.
        optimizer_cpu: its state in the host's memory, and its copy of what trains.
        optimizer_working: what its step makes and drops again.
        communication: whole parameters and gradients of the parts that are gathered at a time.
        tower_communication: likewise while the vision tower runs, before there are activations.
    """

    parameters: int
    buffers: int
    gradients: int
    optimizer: int
    optimizer_cpu: int = 0
    optimizer_working: int = 0
    communication: int = 0
    tower_communication: int = 0


def fixed_memory(model: TrainableModel, options: RunOptions, layout: Layout) -> Fixed:
    """The bytes that no batch changes, of a model that is not spread yet, with or without memory.

    Args:
        model: with its final types and what trains.
        options: of the run, for the optimizer.
        layout: of the ranks.
    """
    parameters = list(model.parameters())
    trained = [one for one in parameters if one.requires_grad]
    gradients = sum(map(layout.bytes, trained))
    offload = options.cpu_offload
    state = sum(
        optimizer_bytes(options.optimizer, one, layout, momentum=options.momentum)
        for one in trained
    )
    copies = gradients if offload == "optimizer" else 0
    gathered, tower = _gathered(model, layout)
    return Fixed(
        parameters=0 if offload == "params" else sum(map(layout.bytes, parameters)),
        buffers=unique_bytes(model.buffers()),
        gradients=0 if offload == "params" else gradients,
        optimizer=0 if offload else state,
        optimizer_cpu=state + copies if offload else 0,
        # Fused or one parameter after the other: what is made is of one parameter.
        optimizer_working=0 if offload else max(map(layout.bytes, trained), default=0),
        communication=gathered,
        tower_communication=tower,
    )


def optimizer_bytes(
    kind: OptimizerKind, parameter: Tensor, layout: Layout, *, momentum: float = 0.0
) -> int:
    """State that an optimizer keeps for a parameter on the first rank."""
    whole = layout.bytes(parameter)
    if kind == "sgd":
        return whole if momentum else 0
    if kind == "adamw8bit":
        count = layout.elements(parameter)
        if parameter.numel() >= _QUANTIZED_AT_LEAST and count % _BLOCK == 0:
            one = count + count // _BLOCK * _SCALE_BYTES + _CODE_BYTES
            return 2 * one + _STEP_BYTES
    return 2 * whole + _STEP_BYTES


def unique_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind tensors, once where several share it."""
    found = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in tensors}
    return sum(found.values())


def _gathered(model: TrainableModel, layout: Layout) -> tuple[int, int]:
    """(while blocks run, while the tower runs): bytes of what is whole for a time.

    A unit is copied out of one gathered buffer, and the next is gathered meanwhile: the largest
    counts twice. Its gradients are whole, and beside them the buffer that is reduced. The last unit
    stays whole for all of the pass.
    """
    if not layout.is_sharded:
        return 0, 0
    taken: set[nn.Parameter] = set()
    largest = largest_trained = tower = last = 0
    for unit in model.shard_units():
        own = [one for module in unit.modules for one in module.parameters() if one not in taken]
        taken.update(own)
        last = sum(map(stored_bytes, set(own)))
        trained = (one for one in set(own) if one.requires_grad)
        if unit.stays:  # it is gathered before there are activations
            tower = max(tower, last)
            continue
        largest = max(largest, last)
        largest_trained = max(largest_trained, sum(x.numel() * x.element_size() for x in trained))
    return last + 2 * largest + 2 * largest_trained, last + 2 * tower
