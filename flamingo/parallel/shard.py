"""The model spread over ranks with FSDP2: which parameters are gathered together.

One group for the vision tower, the perceiver, each cross-attention block, each decoder block, the
embedding and the head (tied, they are one parameter and one group: torch >= 2.13 refuses anything
else), and a last one for what is left: position embeddings, final norms, the media-token rows.
Frozen parts are spread as well; nothing reduces or keeps a gradient of theirs.

Every rank has to gather the same groups in the same order, or all wait for ever. Ranks differ in
how many chunks of images they encode, so the tower is gathered once for all chunks and let go by
`encode_images`; a rank without images encodes a blank one.

Every other group is let go behind each forward pass, the last one too: FSDP2 would keep that one
for the backward pass, and behind a pass that has none (a measurement, text that is written) the
model's parameters would be the gathered ones, which no optimizer has and no checkpoint may hold.

Matrices in NF4 are spread and gathered in their 4 bits; each has to be cut into equal parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from flamingo.models.flamingo.model import Flamingo
from flamingo.modules.language_model import embedding_and_head
from flamingo.modules.quantised import is_quantised


@dataclass(frozen=True, slots=True)
class Unit:
    """What is gathered together.

    Attributes:
        modules: whose parameters these are, but for those of units before.
        stays: whole from its first use in a pass until it is let go by name.
        in_backward: gathered in the backward pass too.
    """

    modules: tuple[nn.Module, ...]
    stays: bool = False
    in_backward: bool = True


def shard_units(model: Flamingo) -> Iterator[Unit]:
    """The units of a model, those inside others first; the last one is the model with what is left.

    Before and after sharding the same.
    """
    yield Unit((model.vision_encoder,), stays=True)
    yield Unit((model.perceiver,))
    for layer in model.decoder_blocks:
        if layer.gated_cross_attn_layer is not None:
            yield Unit((layer.gated_cross_attn_layer,))
        yield Unit((layer,))
    embedding, head = embedding_and_head(model.lang_encoder)
    if model.media_tokens.tied:
        yield Unit((embedding, head))
    else:
        # A frozen lookup has no backward pass; its output has one, for the media-token rows.
        yield Unit((embedding,), in_backward=embedding.weight.requires_grad)
        yield Unit((head,))
    yield Unit((model,))


def shard_model(
    model: Flamingo,
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
    for unit in shard_units(model):
        modules: Any = list(unit.modules) if len(unit.modules) > 1 else unit.modules[0]
        group: Any = fully_shard(modules, reshard_after_forward=not unit.stays, **options)
        if not unit.in_backward:
            group.set_unshard_in_backward(False)
    # Both run the LM without `forward`: the last group would not be gathered.
    for method in ("generate", "allow_packing"):
        register_fsdp_forward_method(model, method)
