"""A model spread over ranks with FSDP2: which parameters are gathered together.

The model says it (`TrainableModel.shard_units`). Frozen parts are spread as well; nothing reduces
or keeps a gradient of theirs.

Every rank has to gather the same units in the same order, or all wait for ever.

Every unit but those that stay is let go behind each forward pass, the last one too: FSDP2 would
keep that one for the backward pass, and behind a pass that has none (a measurement, text that is
written) the model's parameters would be the gathered ones, which no optimizer has and no checkpoint
may hold.

Matrices in NF4 are spread and gathered in their 4 bits; each has to be cut into equal parts.
"""

from typing import Any

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from flamingo.models.family import TrainableModel
from flamingo.modules.quantised import is_quantised


def shard_model(
    model: TrainableModel,
    mesh: DeviceMesh,
    *,
    mp_policy: MixedPrecisionPolicy | None = None,
    in_host_memory: bool = False,
) -> None:
    """Make every parameter a DTensor over the mesh: one-dimensional, or (copies, shards).

    Parameters may still be on the meta device. `mp_policy` says in which types groups are gathered
    and reduced; none: in those that they are stored in. With `in_host_memory` parameters, gradients
    and what an optimizer makes of them are there, and groups are brought to the device to compute.
    """
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": mp_policy or MixedPrecisionPolicy()}
    if in_host_memory:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    if mesh.size(mesh.ndim - 1) == 1:
        # A group of one gathers nothing, and torch asks a tensor of several parts for its one.
        options["ignored_params"] = {one for one in model.parameters() if is_quantised(one)}
    for unit in model.shard_units():
        modules: Any = list(unit.modules) if len(unit.modules) > 1 else unit.modules[0]
        group: Any = fully_shard(modules, reshard_after_forward=not unit.stays, **options)
        if not unit.in_backward:
            group.set_unshard_in_backward(False)
    for method in model.outside_forward:  # for which the last unit would not be gathered
        register_fsdp_forward_method(model, method)
