"""The model spread over ranks with FSDP2: which parameters are gathered together.

One group for the perceiver, each cross-attention block, each decoder block, the embeddings, and a
last one for what is left, the vision tower included. Tied input and output embeddings are one
parameter and therefore one group (torch >= 2.13 refuses anything else).
"""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from flamingo.model.flamingo import Flamingo
from flamingo.model.media_tokens import embedding_and_head


def shard_model(model: Flamingo, mesh: DeviceMesh) -> None:
    """Make every parameter a DTensor over the mesh: one-dimensional, or (copies, shards).

    Parameters may still be on the meta device.
    """
    fully_shard(model.perceiver, mesh=mesh)
    for layer in model.decoder_blocks:
        if layer.gated_cross_attn_layer is not None:
            fully_shard(layer.gated_cross_attn_layer, mesh=mesh)
        fully_shard(layer, mesh=mesh)
    fully_shard([*embedding_and_head(model.lang_encoder)], mesh=mesh)
    fully_shard(model, mesh=mesh)
